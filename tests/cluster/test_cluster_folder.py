"""The files of `cluster/` that no code reads still refer to things that exist."""

from __future__ import annotations

from pathlib import Path

import yaml

from headway.cluster.kubernetes.pods import PROJECT, USER

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"


def test_the_image_is_what_the_pods_expect() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    assert lines[-1] == f"USER {USER}:{USER}"
    assert f"WORKDIR {PROJECT}" in lines
    copied = {line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line and " ./" in line}
    definitions = {"features", "training", "serve_apps", "monitoring", "cluster"}
    assert definitions < copied
    assert all((ROOT / name).exists() for name in copied - {"requirements.lock"})


def test_stages_go_from_lint_to_production_and_a_person_approves_the_last() -> None:
    stages = yaml.safe_load((CLUSTER / "ci.yaml").read_text())["stages"]
    assert [stage["name"] for stage in stages] == [
        "lint",
        "test",
        "contracts",
        "image",
        "render",
        "staging",
        "production",
    ]
    assert [stage["name"] for stage in stages if "approval" in stage] == ["production"]
    for stage in stages:
        for word in stage["run"].replace(";", " ").split():
            if word.startswith("cluster/"):
                assert (ROOT / word).exists(), word


def test_one_image_everywhere_and_code_ports_need_a_token() -> None:
    groups = yaml.safe_load((CLUSTER / "node_groups.yaml").read_text())
    machines = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text())
    assert machines["docker"]["image"] == groups["image"]
    starts = [c for key in ("head", "worker") for c in machines[f"{key}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--num-cpus=0" in starts[0]
