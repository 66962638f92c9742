"""The full fraud decision beside plain servers around the same model, under open load, under spikes and under kills.

Ours: HTTP through HAProxy, JWT, contract admission, online features of both entities from Redis, transformation, model,
exact counts, durable log. Theirs: parse the features that come with the request, predict. One replica or worker each,
one generator, one machine. Everything runs with the hook on, but for pairs with FastAPI with the hook off.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Collector, Report
from benchmarks.serving import batching, kills, spike, sustained
from benchmarks.serving.ours import Ours, platform
from benchmarks.serving.peers import (
    BARE,
    BENTOML,
    FASTAPI,
    LITSERVE,
    MLSERVER,
    STOCK_SERVE,
    TUNED_FASTAPI,
    TUNED_SERVE,
    Peer,
)
from benchmarks.serving.versus import versus
from headway.cli.output import ConsoleProgress
from headway.core.progress import Progress

_BARS: tuple[tuple[Peer, float], ...] = (
    (FASTAPI, 5.0),
    (MLSERVER, 6.0),
    (LITSERVE, 8.0),
    (BENTOML, 15.0),
    (STOCK_SERVE, 40.0),
    (TUNED_FASTAPI, 1.0),
    (TUNED_SERVE, 1.0),
)
_HOOK_OFF = "headway, hook off"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long everything is measured."""

    runs: int
    seconds: float


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report; a ratio is the median over pairs of runs that follow one another."""
    effort = Effort(runs=1, seconds=1.0) if quick else Effort(runs=5, seconds=2.5)
    collector = Collector("serving")
    work = Path(tempfile.mkdtemp(prefix="hb"))
    try:
        with ConsoleProgress() as progress, platform(work) as stage:
            ours = Ours(stage=stage, work=work)
            ours.deploy()
            beside_peers(collector, ours, progress, effort)
            with missed(collector, _HOOK_OFF):
                without_hook(collector, ours, progress, effort)
            for part in (sustained, batching, spike, kills):
                with missed(collector, part.__name__.rpartition(".")[2]):
                    part.measure(collector, ours, progress, quick=quick)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return collector.report()


@contextmanager
def missed(collector: Collector, what: str) -> Iterator[None]:
    """Let what could not be measured miss a bar of its own, and everything after it be measured."""
    try:
        yield
    except (RuntimeError, subprocess.SubprocessError) as error:
        first = str(error).strip().splitlines()[0][:200]
        collector.hold(f"{what}, measured ({first})", 0.0, "", ">=", 1.0)


def beside_peers(collector: Collector, ours: Ours, progress: Progress, effort: Effort) -> None:
    """Hold the bars over every peer, at 32 connections, and over FastAPI's p50 at one."""
    for peer, bar in _BARS:
        with missed(collector, peer.name), progress.stage(peer.name) as stage:
            connections = (1, 8, 32) if peer is FASTAPI else (32,)
            ratios = versus(collector, ours, peer, connections=connections, runs=effort.runs, seconds=effort.seconds)
            what = f"32 connections, requests/s over {peer.name}"
            collector.hold(what, ratios[32].throughput, "times", ">=", bar)
            stage.note(f"{ratios[32].throughput:.2f} times the requests/s")
            if 1 in ratios:
                collector.hold(f"1 connection, p50 over {peer.name}", ratios[1].p50, "times", "<=", 1.25)
                stage.note(f"{ratios[1].p50:.2f} times the p50 at 1 connection")
    with missed(collector, BARE.name), progress.stage(BARE.name) as stage:
        ratios = versus(collector, ours, BARE, runs=effort.runs, seconds=effort.seconds)
        # a request's cost is the part of the machine that it takes from the next one: bare requests/s over ours
        cost = 1.0 / ratios[32].throughput
        collector.hold(f"32 connections, cost per request over {BARE.name}", cost, "times", "<=", 1.25)
        stage.note(f"{cost:.2f} times the cost, {ratios[32].cpu:.2f} times the CPU of server and proxy")


def without_hook(collector: Collector, ours: Ours, progress: Progress, effort: Effort) -> None:
    """Hold the bar over FastAPI with Serve's own request path."""
    with progress.stage(_HOOK_OFF) as stage:
        ours.deploy(hook=False)
        ratios = versus(collector, ours, FASTAPI, runs=effort.runs, seconds=effort.seconds, system=_HOOK_OFF)
        what = f"hook off, 32 connections, requests/s over {FASTAPI.name}"
        collector.hold(what, ratios[32].throughput, "times", ">=", 2.5)
        stage.note(f"{ratios[32].throughput:.2f} times the requests/s of {FASTAPI.name}")
