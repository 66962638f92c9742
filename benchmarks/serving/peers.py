"""The peers: how each is started, where it predicts, and what a request to it looks like.

Each is written as its own documentation writes it, with one worker, one thread of compute and no access log. Those
whose pins conflict with ours live in an environment of their own (`make peers`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load import ROOT, post, write_requests
from benchmarks.serving.ours import Ours
from benchmarks.serving.waiting import free_port, until_predicts
from benchmarks.stage import USE_CASE

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
_HERE = ROOT / "benchmarks" / "peers"
_START_S = 90.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server beside ours."""

    name: str
    command: Callable[[int, Path, str], list[str]]
    """From port, folder of the model and a temporary folder."""
    path: str = "/predict"
    body: Callable[[list[float]], Any] = lambda row: {"features": row}
    """What is posted for one row."""
    environment: Callable[[Ours], dict[str, str]] = lambda _: {}
    own_requests: bool = False
    """Takes our requests: token and entities instead of features."""
    apart: bool = False
    """Lives in the peers' environment."""

    @property
    def missing(self) -> str:
        """Why it cannot be started; empty where it can."""
        return "" if not self.apart or PEERS_PYTHON.exists() else "not installed: make peers"

    def requests(self, ours: Ours) -> Path:
        """Write whole requests of the same rows as ours and return their file."""
        if self.own_requests:
            return ours.requests(prefix="")
        path = ours.work / f"{self.name.replace(' ', '-').replace('/', '-')}.bin"
        write_requests(path, [post(self.path, json.dumps(self.body(row)).encode()) for row in ours.stage.features])
        return path


@dataclass(frozen=True, kw_only=True)
class Started:
    """A peer that predicts."""

    port: int
    requests: Path
    process: psutil.Process

    def processes(self) -> list[psutil.Process]:
        """Return everything that it runs."""
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def started(peer: Peer, ours: Ours) -> Iterator[Started]:
    """Start a peer, wait until it predicts, and stop it at the end; RuntimeError where it cannot be started."""
    if peer.missing:
        raise RuntimeError(f"{peer.name} is {peer.missing}")
    port, requests = free_port(), peer.requests(ours)
    temporary = tempfile.mkdtemp(prefix="pr", dir="/tmp")  # Ray's sockets need a short path
    log = Path(temporary) / "peer.log"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HEADWAY_"))}
    clean |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": temporary, "HOME": temporary}
    with log.open("wb") as output:
        process = subprocess.Popen(
            peer.command(port, ours.stage.model.parent, temporary),
            cwd=ROOT,
            env=clean | peer.environment(ours),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        _wait(process, port, requests, log)
        yield Started(port=port, requests=requests, process=psutil.Process(process.pid))
    finally:
        _stop(process)
        shutil.rmtree(temporary, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], port: int, requests: Path, log: Path) -> None:
    from benchmarks.load import read_requests

    try:
        until_predicts(port, read_requests(requests)[0], _START_S)
    except RuntimeError as error:
        raise RuntimeError(f"{error}; exit {process.poll()}: {log.read_text(errors='replace')[-2_000:]}") from error


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Close its standard input, which ends those that wait for it, then ask, then force."""
    family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(timeout=30.0)
    except subprocess.TimeoutExpired:
        process.kill()
    for member in family[1:]:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=10.0)


def _script(name: str, python: Path | str = sys.executable) -> Callable[[int, Path, str], list[str]]:
    return lambda port, model, temporary: [
        str(python), str(_HERE / name), str(port), str(model / "model.json"), temporary,
    ]  # fmt: skip


def _onnx_script(name: str) -> Callable[[int, Path, str], list[str]]:
    return lambda port, model, temporary: [
        sys.executable, str(_HERE / name), str(port), str(model / "model.onnx"), temporary,
    ]  # fmt: skip


def _uvicorn(application: str, *options: str) -> Callable[[int, Path, str], list[str]]:
    return lambda port, _, __: [
        sys.executable, "-m", "uvicorn", f"benchmarks.peers.{application}:create", "--factory", "--port", str(port),
        "--no-access-log", "--log-level", "warning", *options,
    ]  # fmt: skip


def _model(ours: Ours) -> dict[str, str]:
    folder = ours.stage.model.parent
    return {"BENCHMARK_MODEL": str(folder / "model.json"), "BENCHMARK_ONNX": str(folder / "model.onnx")}


def _platform_of(ours: Ours) -> dict[str, str]:
    settings = ours.stage.settings
    return {
        "HEADWAY_HOME": str(settings.home),
        "HEADWAY_PROJECT": str(settings.project),
        "BENCHMARK_USE_CASE": USE_CASE,
    }


def _tensor(row: list[float]) -> Any:
    return {"inputs": [{"name": "input", "shape": [1, len(row)], "datatype": "FP32", "data": row}]}


FASTAPI = Peer(name="fastapi + xgboost", command=_uvicorn("fastapi_app"), environment=_model)
MLSERVER = Peer(
    name="mlserver + xgboost",
    command=_script("apart/mlserver_app.py", PEERS_PYTHON),
    path="/v2/models/model/infer",
    body=_tensor,
    apart=True,
)
LITSERVE = Peer(name="litserve + xgboost", command=_script("apart/litserve_app.py", PEERS_PYTHON), apart=True)
BENTOML = Peer(name="bentoml + xgboost", command=_script("apart/bentoml_app.py", PEERS_PYTHON), apart=True)
STOCK_SERVE = Peer(name="ray serve (stock) + xgboost", command=_script("stock_serve.py"))
TUNED_FASTAPI = Peer(
    name="fastapi (tuned) + batches + onnx",
    command=_uvicorn("tuned_fastapi", "--loop", "uvloop", "--http", "httptools"),
    environment=_model,
)
TUNED_SERVE = Peer(name="ray serve (tuned) + serve.batch + onnx", command=_onnx_script("tuned_serve.py"))
BARE = Peer(
    name="bare asgi + uvicorn, our decision code",
    command=_uvicorn("bare_asgi", "--loop", "uvloop", "--http", "httptools"),
    environment=_platform_of,
    own_requests=True,
)
