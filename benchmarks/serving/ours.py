"""Our side of the serving benchmark: a platform of its own, deployments, tokens, requests and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load import ROOT, measure, write_requests
from benchmarks.serving.waiting import until_answers
from benchmarks.stage import USE_CASE, Stage, our_requests, prepare, sign_overlay, use_contract
from headway.governance.contract_schema import Contract
from headway.serving.hook import SWITCH

HEADWAY = "headway"
_READY_S = 60.0
_REPLICA = f"ray::ServeReplica:{USE_CASE}"
_CONTROLLER = "ray::ServeController"


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A platform that is up, with a model promoted and a signed contract."""

    stage: Stage
    work: Path

    @property
    def port(self) -> int:
        """Where HAProxy listens."""
        return self.stage.settings.http_port

    def requests(self, client: str = "benchmark", *, prefix: str = f"/{USE_CASE}", keys: str | None = None) -> Path:
        """Write decision requests with a fresh token, which lives for minutes, and return their file."""
        path = self.work / f"{client}{prefix.replace('/', '-')}{'' if keys is None else '-keys'}.bin"
        token = decide_token(self.stage, client)
        write_requests(path, our_requests(self.stage, token, prefix=prefix, keys=keys))
        return path

    def deploy(self, contract: Contract | None = None, *, hook: bool = True, **options: Any) -> None:
        """Roll out under a contract, by default ours with its ceiling and limits raised, and then also warm up."""
        settings = self.stage.settings
        if contract is None:
            sign_overlay(settings)
        else:
            use_contract(settings, contract)
        actor: dict[str, Any] = {"num_cpus": 0.2}
        if not hook:
            actor["runtime_env"] = {"env_vars": {SWITCH: ""}}
        deploy(self.stage, {"ray_actor_options": actor} | options)
        until_answers(f"http://127.0.0.1:{settings.http_port}/{USE_CASE}/v2/health/ready", _READY_S)
        if contract is None:
            measure(HEADWAY, self.port, 8, 1.0, self.requests())

    def processes(self, *titles: str) -> list[psutil.Process]:
        """Return our processes with one of these names or beginnings of titles."""
        from headway.cluster.local.process import ours

        found = []
        for process in ours(self.stage.settings.home):
            try:
                title = " ".join(process.cmdline()) or process.name()
                if process.name() in titles or title.startswith(titles):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def replicas(self) -> list[psutil.Process]:
        """Return the processes of the use case's replicas."""
        return self.processes(_REPLICA)

    def controller(self) -> psutil.Process:
        """Return Serve's controller."""
        (found,) = self.processes(_CONTROLLER)
        return found

    def serving(self) -> list[psutil.Process]:
        """Return what a request passes through: replicas and HAProxy."""
        return self.processes(_REPLICA, "haproxy")


@contextmanager
def platform(work: Path) -> Iterator[Stage]:
    """Start a platform under `work`, fill it, and stop it at the end."""
    from headway.cluster.local.lifecycle import down
    from headway.core.settings import load_settings

    settings = load_settings(home=work / "home", project=work / "project")
    try:
        yield prepare(work, ROOT)
    finally:
        down(settings)


def on_platform(stage: Stage, module: str, *arguments: str) -> str:
    """Run a module that takes home and project first, and return what it printed.

    A process of its own: Ray and Serve read their environment once.
    """
    from headway.core.platform_state import read_state
    from headway.core.ray_session import driver_env

    settings = stage.settings
    state = read_state(settings.home)
    assert state is not None
    done = subprocess.run(
        [sys.executable, "-m", module, str(settings.home), str(settings.project), *arguments],
        cwd=ROOT,
        env={**os.environ, **driver_env(settings, state)},
        capture_output=True,
        check=False,
        timeout=240,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    return done.stdout


def deploy(stage: Stage, options: Mapping[str, Any] | None = None) -> None:
    """Deploy as `headway deploy` does."""
    on_platform(stage, "benchmarks.deploy", USE_CASE, json.dumps(dict(options or {})))


@contextmanager
def deployed(stage: Stage) -> Iterator[int]:
    """Deploy, and yield the port once a decision can be answered."""
    deploy(stage)
    until_answers(f"http://127.0.0.1:{stage.settings.http_port}/{USE_CASE}/v2/health/ready", _READY_S)
    yield stage.settings.http_port


def decide_token(stage: Stage, client: str = "benchmark") -> str:
    """Return a token of a client that may decide."""
    from headway.core.clock import SystemClock
    from headway.governance.issuing import development_issuer

    issuer = development_issuer(stage.settings.home, SystemClock())
    return issuer.issue(client, "workload", [f"decide:{USE_CASE}"], "fraud_prevention")


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return what they have used so far."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))
