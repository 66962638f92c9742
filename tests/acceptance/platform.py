"""The platform under test, as its users reach it: the `headway` command, tokens of its issuer, its address."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import psutil
import pyarrow as pa

from headway.cluster.compose import Installation
from headway.cluster.local.process import ours
from headway.cluster.local.tokens import request_token
from headway.core.platform_state import PlatformState, read_state
from headway.core.settings import Settings, load_settings
from headway.governance.issuing import ALGORITHM, DEVELOPMENT_ISSUER, IssuerKey

PURPOSE = "customer_retention"
ROW = {"customer_id": 4, "amount": 29.33}
BODY = {"rows": [ROW]}
LATENCY = ("latency.p95_ms", "latency.p99_ms")
"""Clauses that a busy machine may miss."""


@dataclass(kw_only=True)
class Platform:
    """A home, a project, and what was seen of them."""

    home: Path
    project: Path
    programs: Path
    """Folder of the `headway` and `serve` commands."""
    first: dict[str, Any] = field(default_factory=dict)
    """Report of the first demo."""

    @property
    def settings(self) -> Settings:
        """Settings without the addresses of services."""
        return load_settings(home=self.home, project=self.project)

    @property
    def state(self) -> PlatformState:
        """The recorded state; fails where nothing was started."""
        state = read_state(self.home)
        assert state is not None
        return state

    @property
    def url(self) -> str:
        """Where Serve answers."""
        return f"http://127.0.0.1:{self.state.http_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a plain shell in which only HEADWAY_HOME was set."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", "HEADWAY_HOME": str(self.home)}

    def run(self, *command: str, timeout: float = 300.0, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's root and return what it printed."""
        environment = self.environment | ({} if home is None else {"HEADWAY_HOME": str(home)})
        return subprocess.run(
            command, cwd=self.project, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def headway(self, *arguments: str, code: int = 0, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a `headway` command that ends with `code`."""
        done = self.run("headway", *arguments, home=home)
        assert done.returncode == code, f"headway {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def read(self, *arguments: str) -> Any:
        """Return what a `headway` command prints with `--json`."""
        return json.loads(self.headway(*arguments, "--json").stdout)

    def demo(self, *, requests: int) -> dict[str, Any]:
        """Run the core story and return its report; it succeeds however slow the machine is."""
        command = ("demo", "--use-case", "churn", "--story", "core", "--requests", str(requests), "--json")
        done = self.run("headway", *command, timeout=500.0)
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
        report: dict[str, Any] = json.loads(done.stdout)
        self.first = self.first or report
        return report

    def token(self, *scopes: str, purpose: str = PURPOSE, lifetime_s: int = 900) -> str:
        """Return a token of the platform's issuer."""
        return request_token(
            self.settings, sub="tester", kind="workload", scopes=scopes, purpose=purpose, lifetime_s=lifetime_s
        )

    def forged(self, *, algorithm: str = ALGORITHM, **changed: object) -> str:
        """Return a token of claims that the issuer would not give, by its key (by none with `algorithm="none"`)."""
        key = IssuerKey(self.home / "issuer" / "key.pem")
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": DEVELOPMENT_ISSUER,
            "sub": "tester",
            "aud": "headway",
            "iat": now,
            "exp": now + 300,
            "jti": f"acceptance-{time.time_ns()}",
            "kind": "workload",
            "scope": "decide:churn",
            "purpose": PURPOSE,
        }
        signer = "" if algorithm == "none" else key.private
        return jwt.encode(claims | changed, signer, algorithm=algorithm, headers={"kid": key.kid})

    def replicas(self) -> set[int]:
        """Return the processes that serve churn."""
        found = set()
        for process in ours(self.home, self.state.services.values()):
            with suppress(psutil.Error):  # it has ended since
                line = process.cmdline()
                if line and line[0].startswith("ray::ServeReplica:churn"):
                    found.add(process.pid)
        return found

    def scan(self, table: str) -> pa.Table:
        """Return a lake table as a governed reader sees it."""
        at = Installation.running(writer="acceptance", home=self.home, project=self.project)
        worker = at.workload("acceptance", ["data:read"], PURPOSE)
        return at.reader.scan(table, worker, PURPOSE)

    def audited(self, action: str) -> list[dict[str, Any]]:
        """Return the events of an action, of all writers, oldest first."""
        lines = [line for path in (self.home / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
        events = [event for event in map(json.loads, lines) if event["action"] == action]
        return sorted(events, key=lambda event: int(event["time"]))


def until(what: Callable[[], bool], *, within_s: float, message: str) -> None:
    """Wait for something to become true, or fail with `message`."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, message
        time.sleep(0.1)
