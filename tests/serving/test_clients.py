"""Real clients of the Open Inference Protocol, each in its own process and environment, against the whole service."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.serving.grpc.helpers import listening as listening_grpc
from tests.serving.helpers import Toy, listening

CLIENTS = ROOT / ".venv-clients" / "bin"
SPECIFICATION = ROOT.parent / "shared" / "schemas" / "open-inference" / "open_inference_rest.yaml"
pytestmark = pytest.mark.skipif(not CLIENTS.exists(), reason="the clients are not installed: make clients")


async def run(folder: Path, *command: str) -> tuple[int, str]:
    """Run beside the server, on whose loop this is."""
    environment = {**os.environ, "NO_COLOR": "1"}
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        env=environment,
        cwd=folder,
    )
    return done.returncode, str(done.stdout)


def talk(tmp_path: Path, script: str, url: str) -> Any:
    async def work(toy: Toy) -> tuple[int, str]:
        async with listening(toy.gateway, "/toy", lanes=toy.service) as port:
            return await say(tmp_path, script, url.format(port=port))

    return heard(Toy(tmp_path).call(work, within_s=250))


def talk_grpc(tmp_path: Path, script: str) -> Any:
    async def work(toy: Toy) -> tuple[int, str]:
        async with listening_grpc(toy=toy.inference) as port:
            return await say(tmp_path, script, f"127.0.0.1:{port}")

    return heard(Toy(tmp_path).call(work, within_s=250))


async def say(folder: Path, script: str, place: str) -> tuple[int, str]:
    return await run(folder, str(CLIENTS / "python"), str(ROOT / "tests" / "clients" / script), place, "toy", "alice")


def heard(answer: tuple[int, str]) -> Any:
    status, said = answer
    assert status == 0, said
    return json.loads(said.splitlines()[-1])


def test_nvidias_client(tmp_path: Path) -> None:
    found = talk(tmp_path, "triton.py", "127.0.0.1:{port}/toy")
    assert [found[name] for name in ("live", "ready", "model_ready", "version_ready")] == [True] * 4
    assert "binary_tensor_data" in found["server"]["extensions"]
    assert {tensor["name"]: tensor["datatype"] for tensor in found["model"]["inputs"]} == {
        "customer_id": "INT64", "shop": "BYTES", "amount": "FP32", "event_time": "INT64",
    }  # fmt: skip
    assert found["index"] == [{"name": "toy", "version": "7", "state": "READY", "reason": ""}]
    assert found["raw"] == found["json"]
    assert found["no_token"][0] == "401"
    assert found["no_model"][0] == "404"
    assert (found["no_input"][0], "shop" in found["no_input"][1]) == ("400", True)


def test_kserves_client(tmp_path: Path) -> None:
    found = talk(tmp_path, "kserve_v2.py", "http://127.0.0.1:{port}/toy")
    assert [found[name] for name in ("live", "ready", "model_ready")] == [True] * 3
    assert found["json"] == found["raw"]
    assert found["json"]["label"] == ["low", "high"]
    assert (found["json_id"], found["raw_id"]) == ("mine-False", "mine-True")


def test_nvidias_client_over_grpc(tmp_path: Path) -> None:
    found = talk_grpc(tmp_path, "triton_grpc.py")
    assert [found[name] for name in ("live", "ready", "model_ready", "version_ready")] == [True] * 4
    assert found["server"]["name"] == "headway"
    assert {tensor["name"]: tensor["datatype"] for tensor in found["model"]["inputs"]} == {
        "customer_id": "INT64", "shop": "BYTES", "amount": "FP32", "event_time": "INT64",
    }  # fmt: skip
    assert found["index"] == {"models": [{"name": "toy", "version": "7", "state": "READY"}]}
    assert (found["id"], found["label"], found["arm"]) == ("mine", ["low", "high"], ["champion"] * 2)
    assert found["score"] == found["after"] == pytest.approx([0.2, 0.8])
    assert found["only"] == ["label"]
    for name, code, text in [
        ("no_token", "UNAUTHENTICATED", "token"),
        ("forged", "UNAUTHENTICATED", "token"),
        ("no_model", "NOT_FOUND", "nobody"),
        ("no_input", "INVALID_ARGUMENT", "inputs.shop"),
        ("classes", "INVALID_ARGUMENT", "classification"),
        ("no_such_method", "UNIMPLEMENTED", ""),
    ]:
        assert found[name][0] == f"StatusCode.{code}"
        assert text in found[name][1]


def test_kserves_client_over_grpc(tmp_path: Path) -> None:
    found = talk_grpc(tmp_path, "kserve_grpc.py")
    assert [found[name] for name in ("live", "ready", "model_ready")] == [True] * 3
    assert found["typed"]["label"] == found["raw"]["label"] == ["low", "high"]
    assert found["typed"]["score"] == found["raw"]["score"]
    assert (found["typed_id"], found["raw_id"]) == ("mine-False", "mine-True")
    assert found["no_token"] == ["UNAUTHENTICATED", "unauthenticated"]


@pytest.mark.skipif(not SPECIFICATION.exists(), reason="the specification, shared/schemas, is not beside this clone")
def test_generated_requests_after_the_specification(tmp_path: Path) -> None:
    async def work(toy: Toy) -> tuple[int, str]:
        async with listening(toy.gateway, "/toy", lanes=toy.service) as port:
            return await run(
                tmp_path, str(CLIENTS / "schemathesis"), "run", str(SPECIFICATION), "--url", f"http://127.0.0.1:{port}/toy",
                "--header", "authorization: Bearer alice", "--max-examples", "25", "--seed", "7",
                "--checks", "not_a_server_error,response_headers_conformance,content_type_conformance",
                "--no-color", "--generation-database", "none",
            )  # fmt: skip

    status, said = Toy(tmp_path).call(work, within_s=250)
    assert status == 0, said[-4_000:]
