"""The full fraud decision against plain FastAPI and stock Ray Serve, which get features for free and log nothing.

Ours: HTTP through HAProxy, JWT, contract admission, online features of both entities from Redis, transformation, model,
exact counts, durable log. Theirs: parse the features, predict. One replica or worker each, one generator, one machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Collector, Report
from benchmarks.load import VOID_ABOVE, write_requests
from benchmarks.stage import USE_CASE, Stage, our_requests, peer_requests, prepare

ROOT = Path(__file__).resolve().parent.parent
OURS, FASTAPI, STOCK = "headway", "fastapi + xgboost", "ray serve (stock) + xgboost"
_CONNECTIONS = (1, 8, 32)
_METRICS = (
    ("throughput", "rps", "requests/s"),
    ("p50", "p50_ms", "ms"),
    ("p99", "p99_ms", "ms"),
    ("generator", "cpu", "share of a core"),
)


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report; a ratio is the median over pairs of runs that follow one another."""
    runs, seconds = (1, 2.0) if quick else (7, 3.0)
    collector = Collector("serving")
    work = Path(tempfile.mkdtemp(prefix="hb"))
    try:
        with _platform(work) as stage:
            write_requests(work / "ours.bin", our_requests(stage, _token(stage)))
            write_requests(work / "peers.bin", peer_requests(stage))
            with _deployed(stage) as port:
                with _fastapi(work) as peer:
                    fastapi = _pairs(collector, work, port, FASTAPI, peer, runs=runs, seconds=seconds)
                with _stock(work) as peer:
                    stock = _pairs(collector, work, port, STOCK, peer, runs=min(runs, 3), seconds=seconds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    collector.hold("32 connections, requests/s over FastAPI", fastapi[32][0], "times", ">=", 2.5)
    collector.hold("32 connections, requests/s over stock Ray Serve", stock[32][0], "times", ">=", 12.0)
    collector.hold("1 connection, p50 over FastAPI", fastapi[1][1], "times", "<=", 1.6)
    return collector.report()


def _pairs(
    collector: Collector, work: Path, port: int, peer: str, peer_port: int, *, runs: int, seconds: float
) -> dict[int, tuple[float, float]]:
    """Run ours and a peer in turn; return the ratios of requests/s and p50 by connections, ours over theirs."""
    found = {}
    ours, theirs = f"{OURS}, beside {peer}", peer
    for connections in _CONNECTIONS:
        case = f"{connections} connections"
        measured: dict[str, list[dict[str, Any]]] = {ours: [], theirs: []}
        for _ in range(runs):
            measured[ours].append(_run(OURS, port, connections, seconds, work / "ours.bin"))
            measured[theirs].append(_run(peer, peer_port, connections, seconds, work / "peers.bin"))
        for system, results in measured.items():
            for metric, key, unit in _METRICS:
                collector.add(system, case, metric, unit, [result[key] for result in results])
        both = list(zip(measured[ours], measured[theirs], strict=True))
        rate = collector.add(ours, case, "throughput ratio", "times", [a["rps"] / b["rps"] for a, b in both])
        p50 = collector.add(ours, case, "p50 ratio", "times", [a["p50_ms"] / b["p50_ms"] for a, b in both])
        print(f"{ours}, {case}: {rate:.2f} times the requests/s, {p50:.2f} times the p50", flush=True)
        found[connections] = (rate, p50)
    return found


def _run(system: str, port: int, connections: int, seconds: float, requests: Path) -> dict[str, Any]:
    result = _load(port, connections, seconds, requests)
    if result["errors"]:
        raise RuntimeError(f"{system}: {result['errors']} errors, first: {result['first_error']}")
    if result["cpu"] > VOID_ABOVE:
        raise RuntimeError(f"{system}: the generator used {result['cpu']:.0%} of a core: the run is void")
    return result


def _load(port: int, connections: int, seconds: float, requests: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", "127.0.0.1", str(port), str(connections), str(seconds)]
    done = subprocess.run(
        [*command, str(requests)], cwd=ROOT, capture_output=True, check=True, timeout=seconds + 60, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _token(stage: Stage) -> str:
    from headway.core.clock import SystemClock
    from headway.governance.issuing import development_issuer

    issuer = development_issuer(stage.settings.home, SystemClock())
    return issuer.issue("benchmark", "workload", [f"decide:{USE_CASE}"], "fraud_prevention")


@contextlib.contextmanager
def _platform(work: Path) -> Iterator[Stage]:
    from headway.cluster.local.lifecycle import down
    from headway.core.settings import load_settings

    settings = load_settings(home=work / "home", project=work / "project")
    try:
        yield prepare(work, ROOT)
    finally:
        down(settings)


@contextlib.contextmanager
def _deployed(stage: Stage) -> Iterator[int]:
    """Deploy as `headway deploy` does and yield the port once a decision can be answered."""
    from headway.core.platform_state import read_state
    from headway.core.ray_session import driver_env

    settings = stage.settings
    state = read_state(settings.home)
    assert state is not None
    command = [sys.executable, "-m", "benchmarks.deploy", str(settings.home), str(settings.project), USE_CASE]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **driver_env(settings, state)},
        capture_output=True,
        check=False,
        timeout=180,
        text=True,
    )
    if "ready" not in done.stdout:
        raise RuntimeError(f"the application did not start: {done.stderr[-2000:]}")
    _wait(f"http://127.0.0.1:{settings.http_port}/{USE_CASE}/v2/health/ready", 60.0)
    yield settings.http_port


@contextlib.contextmanager
def _fastapi(work: Path) -> Iterator[int]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.peers.fastapi_app:create", "--factory"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--no-access-log", "--log-level", "warning"],
        cwd=ROOT,
        env={**os.environ, "BENCHMARK_MODEL": str(work / "model" / "model.json"), "OMP_NUM_THREADS": "1"},
    )
    try:
        _wait(f"http://127.0.0.1:{port}/openapi.json", 60.0)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextlib.contextmanager
def _stock(work: Path) -> Iterator[int]:
    port = _free_port()
    temporary = tempfile.mkdtemp(prefix="rs", dir="/tmp")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HEADWAY_"))}
    clean |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "peers" / "stock_serve.py"), str(port),
         str(work / "model" / "model.json"), temporary],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready":
                break
        else:
            raise RuntimeError("stock Ray Serve did not start")
        yield port
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(temporary, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2.0) as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(f"{url} does not answer: {error}") from error
        time.sleep(0.1)
