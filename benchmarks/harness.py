"""The result of a benchmark: what was measured on which machine with which versions, and the bars it is held to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

_PACKAGES = ("ray", "xgboost", "onnxruntime", "fastapi", "uvicorn", "msgspec", "numpy", "pyarrow", "scikit-learn")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one system in one case."""

    system: str
    case: str
    metric: str
    unit: str
    median: float
    min: float
    max: float
    runs: int


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A measured value and what it must reach."""

    what: str
    measured: float
    unit: str
    bar: float
    direction: str
    """`>=` or `<=`."""
    holds: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The file a benchmark writes."""

    name: str
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    results: list[Result]
    bars: list[Bar]

    @property
    def holds(self) -> bool:
        """Whether every bar holds."""
        return all(bar.holds for bar in self.bars)

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")


@dataclass
class Collector:
    """Gathers results while a benchmark runs."""

    name: str

    def __post_init__(self) -> None:
        """Start empty."""
        self.results: list[Result] = []
        self.bars: list[Bar] = []

    def add(self, system: str, case: str, metric: str, unit: str, values: Sequence[float]) -> float:
        """Record a metric's values over the runs and return their median."""
        median = statistics.median(values)
        self.results.append(
            Result(
                system=system,
                case=case,
                metric=metric,
                unit=unit,
                median=median,
                min=min(values),
                max=max(values),
                runs=len(values),
            )
        )
        return median

    def hold(self, what: str, measured: float, unit: str, direction: str, bar: float) -> bool:
        """Record a bar and return whether it holds."""
        holds = measured >= bar if direction == ">=" else measured <= bar
        self.bars.append(Bar(what=what, measured=measured, unit=unit, bar=bar, direction=direction, holds=holds))
        return holds

    def report(self) -> Report:
        """Return the finished report."""
        return Report(name=self.name, machine=machine(), versions=versions(), results=self.results, bars=self.bars)


def machine() -> dict[str, str | int | float]:
    """Return what the numbers depend on, without names or addresses."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def print_bars(report: Report) -> None:
    """Print one line per bar."""
    for bar in report.bars:
        word = "holds" if bar.holds else "FALLS SHORT"
        print(f"{bar.what}: {bar.measured:.4g} {bar.unit} ({bar.direction} {bar.bar:g}) {word}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
