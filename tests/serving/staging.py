"""A platform of its own with one served use case: signed contract and model, real features, the hook on or off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stage import USE_CASE, Stage, prepare
from headway.cluster.local.lifecycle import down
from headway.core.clock import SystemClock
from headway.core.platform_state import PlatformState, read_state
from headway.core.ray_session import driver_env
from headway.core.settings import load_settings
from headway.governance.issuing import development_issuer
from headway.serving.hook import SWITCH
from tests.serving.callers import Callers

ROOT = Path(__file__).resolve().parents[2]
REPLICA = "ray::ServeReplica:"
CONTROLLER = "ray::ServeController"
PATIENCE_S = 90.0


@contextmanager
def staged() -> Iterator[Staged]:
    """Start a platform with everything that a decision needs, nothing deployed yet."""
    work = Path(tempfile.mkdtemp(prefix="ht"))
    settings = load_settings(home=work / "home", project=work / "project")
    try:
        yield Staged(prepare(work, ROOT))
    finally:
        down(settings)
        shutil.rmtree(work, ignore_errors=True)


class Staged:
    """The platform, and what tests do to it."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.settings = stage, stage.settings
        self.bodies = [json.dumps({"rows": [row]}).encode() for row in stage.rows[:200]]

    @property
    def state(self) -> PlatformState:
        """What runs where."""
        found = read_state(self.settings.home)
        assert found is not None
        return found

    @property
    def url(self) -> str:
        """The use case behind HAProxy."""
        return f"http://127.0.0.1:{self.settings.http_port}/{USE_CASE}"

    @property
    def decisions(self) -> str:
        """Where decisions are asked for."""
        return f"{self.url}/v1/decisions"

    def token(self, use_case: str = USE_CASE, purpose: str = "fraud_prevention") -> str:
        """Return a token that may decide."""
        issuer = development_issuer(self.settings.home, SystemClock())
        return issuer.issue("test", "workload", [f"decide:{use_case}"], purpose)

    def deploy(self, use_case: str = USE_CASE, *, hook: bool = True, **options: Any) -> None:
        """Deploy, or redeploy over what serves; ready when it returns."""
        actor: dict[str, Any] = {"num_cpus": 0.2}
        if not hook:
            actor["runtime_env"] = {"env_vars": {SWITCH: ""}}
        home, project = str(self.settings.home), str(self.settings.project)
        done = subprocess.run(
            [sys.executable, "-m", "tests.serving.deploying", home, project, use_case,
             json.dumps({"ray_actor_options": actor} | options)],
            cwd=ROOT, env={**os.environ, **driver_env(self.settings, self.state)}, capture_output=True, check=False,
            timeout=180, text=True,
        )  # fmt: skip
        assert "ready" in done.stdout, done.stderr[-2000:]
        until(lambda: self.ask("/v2/health/ready")[0] == 200)

    def callers(self, rate: float, **more: Any) -> Callers:
        """Return callers of decisions at a rate."""
        return Callers(self.decisions, self.bodies, self.token(), rate=rate, **more)

    def ask(self, path: str, body: bytes | None = None, token: str | None = None) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body of one request."""
        headers = {"content-type": "application/json"} | ({} if token is None else {"authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers), timeout=20) as answer:
                return answer.status, _lower(answer.headers), _parsed(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _lower(error.headers), _parsed(error.read())
        except OSError as error:
            return 0, {}, str(error)

    def workers(self, title: str) -> list[psutil.Process]:
        """Return the platform's processes whose command line begins so, or whose program has this name."""
        found = []
        for service in self.state.services.values():
            with suppress(psutil.Error):
                family = psutil.Process(service.pid).children(recursive=True)
                found += [one for one in family if _line(one).startswith(title) or _name(one) == title]
        return found

    def replicas(self) -> list[psutil.Process]:
        """Return the replicas of the use case."""
        return self.workers(f"{REPLICA}{USE_CASE}")

    def reachable(self) -> int:
        """Return how many replicas HAProxy sends requests to; 0 while it does not answer."""
        url = f"http://127.0.0.1:{self.state.ports['haproxy-stats']}/stats;csv"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                head, *lines = answer.read().decode().splitlines()
        except OSError:
            return 0
        names = head.lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines if line]
        rows = [row for row in rows if not row["pxname"].startswith("grpc")]
        own = [row for row in rows if USE_CASE in row["pxname"] and row["svname"] not in ("BACKEND", "FRONTEND")]
        return sum(row["status"].startswith("UP") and row["bck"] == "0" for row in own)


def until(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> float:
    """Wait until something holds, but not for ever; return the seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + within_s, "it does not come about"
        time.sleep(0.02)
    return time.monotonic() - began


def _line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
