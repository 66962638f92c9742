"""What the batch job scores is what was served, and what is rendered for elsewhere is what runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from headway.cluster.kubernetes.validate import Schemas, read_manifests, validate
from headway.cluster.serve_config import serve_config
from headway.core.times import parse_time
from headway.governance.contract import load_contract
from tests.acceptance.platform import Platform

SINCE, UNTIL = "1998-01-10T00:00:00Z", "1998-03-10T00:00:00Z"


def test_batch_scores_equal_the_served_ones(platform: Platform) -> None:
    platform.headway("login", "--user", "tester")
    scored = platform.read("score", "churn", "--since", SINCE, "--until", UNTIL)
    assert scored["table"] == "scores.churn"
    table = platform.scan("scores.churn")
    assert table.num_rows == scored["rows"] > 1_000
    assert set(table["model_version"].to_pylist()) == {scored["version"]}
    times = table["event_time"].to_numpy()
    assert times.min() >= parse_time(SINCE)
    assert times.max() < parse_time(UNTIL)
    batch = {(row["customer_id"], row["event_time"]): row["score"] for row in table.to_pylist()}
    served = [
        row
        for row in platform.scan("decisions.churn").to_pylist()
        if row["sub"] == "demo-client" and parse_time(SINCE) <= row["event_time"] < parse_time(UNTIL)
    ]
    assert len(served) > 100
    assert {row["model_version"] for row in served} == {scored["version"]}
    online = np.array([row["score"] for row in served], dtype=np.float32)
    offline = np.array([batch[row["customer_id"], row["event_time"]] for row in served], dtype=np.float32)
    assert np.array_equal(online, offline), np.abs(online - offline).max()


def test_an_empty_range_is_said(platform: Platform) -> None:
    platform.headway("login", "--user", "tester")
    said = platform.headway("score", "churn", "--since", "1990-01-01", "--until", "1991-01-01", code=2).stderr
    assert "purchases" in said
    assert "--since" in platform.headway("score", "churn", "--since", "soon", code=2).stderr


def test_rendered_manifests_are_valid_and_serve_the_same(platform: Platform, tmp_path: Path) -> None:
    written = platform.read("render", "kubernetes", "churn", "--out", str(tmp_path / "k8s"))
    paths = [Path(path) for path in written]
    assert all(path.is_file() for path in paths)
    manifests = read_manifests(paths)
    for manifest in manifests:
        if manifest["kind"] not in ("RayService", "PodMonitor"):
            validate(manifest, {})
    (service,) = (manifest for manifest in manifests if manifest["kind"] == "RayService")
    contract = load_contract(platform.project / "serve_apps" / "churn" / "contract.yaml").contract
    decisions, events = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert {"applications": [decisions]} == serve_config("churn", contract=contract)
    assert events["route_prefix"] == "/v1/events"


def test_the_ray_service_is_valid_for_kuberay(platform: Platform, tmp_path: Path, crds: Schemas) -> None:
    platform.headway("render", "kubernetes", "churn", "--out", str(tmp_path / "k8s"))
    manifests = read_manifests(sorted((tmp_path / "k8s").glob("*.yaml")))
    kinds = [manifest["kind"] for manifest in manifests]
    assert "RayService" in kinds
    for manifest in manifests:
        validate(manifest, crds)


def test_nothing_is_rendered_for_an_unknown_use_case(platform: Platform, tmp_path: Path) -> None:
    platform.headway("render", "kubernetes", "nosuch", "--out", str(tmp_path / "k8s"), code=2)
    assert not (tmp_path / "k8s").exists()
