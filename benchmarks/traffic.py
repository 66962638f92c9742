"""Open-loop traffic: what is offered, and what became of every request; the generator is a process of its own.

A closed loop waits for a slow server and so measures it kindly (coordinated omission). Here requests leave on their own
schedule and latency counts from the scheduled time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.load import ROOT, require_spare

LOST, UNANSWERED = -1, 0
"""Statuses of requests whose connection ended, and of those that nobody answered in time."""
LEAD_S = 0.3
"""From the generator's word that it starts to second 0 of the schedule."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of traffic at one rate."""

    requests: str
    """File of whole requests, sent in turn."""
    rate: float
    """Arrivals per second."""
    start: float
    end: float
    """Seconds."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where."""

    port: int
    streams: list[Stream]
    connections: int = 256
    patience_s: float = 10.0
    """How long after the last arrival an answer is waited for."""
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What became of every request, in order of arrival."""

    due: npt.NDArray[np.float64]
    """Seconds since the start."""
    latency: npt.NDArray[np.float64]
    """Milliseconds from `due` to the whole answer; of unanswered ones to the end."""
    status: npt.NDArray[np.int16]
    retry_after: npt.NDArray[np.bool_]
    """Whether the answer said when to come back."""
    stream: npt.NDArray[np.int16]
    seconds: float
    """Length of the schedule."""
    cpu: float
    """The generator's share of a core."""

    @property
    def failed(self) -> int:
        """Requests without a 200."""
        return int((self.status != 200).sum())

    @property
    def error_share(self) -> float:
        """Part of the requests without a 200."""
        return self.failed / max(1, len(self.status))

    @property
    def achieved(self) -> float:
        """Part of the offered requests that was answered with 200 before the schedule ended."""
        in_time = (self.status == 200) & (self.due + self.latency / 1e3 <= self.seconds)
        return float(in_time.sum()) / max(1, len(self.status))

    def quantile(self, q: float, chosen: npt.NDArray[np.bool_] | None = None) -> float:
        """Return a quantile of the latency in milliseconds, of the answers with 200 or of those chosen."""
        latency = self.latency[self.status == 200 if chosen is None else chosen]
        return float(np.quantile(latency, q)) if len(latency) else float("inf")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A generator at work."""

    process: subprocess.Popen[str]
    out: Path
    began: float
    """When second 0 of the schedule is, in monotonic seconds."""
    plan: Plan

    def wait_until(self, second: float) -> None:
        """Sleep until a second of the schedule."""
        time.sleep(max(0.0, self.began + second - time.monotonic()))

    def traffic(self, system: str) -> Traffic:
        """Wait for the end and return what happened; raise where the generator was what was measured."""
        seconds = max(stream.end for stream in self.plan.streams) + self.plan.patience_s + 60.0
        said, errors = self.process.communicate(timeout=seconds)
        if self.process.returncode:
            raise RuntimeError(f"the generator failed: {errors[-2_000:]}")
        numbers = json.loads(said)
        require_spare(system, numbers["cpu"])
        with np.load(self.out) as arrays:
            return Traffic(**{name: arrays[name] for name in arrays.files}, **numbers)


def start(plan: Plan, folder: Path) -> Running:
    """Start the generator in a process of its own."""
    where = Path(tempfile.mkdtemp(prefix="open-", dir=folder))
    (where / "plan.json").write_bytes(msgspec.json.encode(plan))
    command = [sys.executable, "-m", "benchmarks.open_loop", str(where / "plan.json"), str(where / "out.npz")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    began = process.stdout.readline()
    if not began:
        raise RuntimeError(f"the generator did not start: {process.communicate()[1][-2_000:]}")
    return Running(process=process, out=where / "out.npz", began=float(began), plan=plan)


def offer(system: str, plan: Plan, folder: Path) -> Traffic:
    """Run a plan and return what happened."""
    return start(plan, folder).traffic(system)
