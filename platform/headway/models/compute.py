"""What a version costs to run, measured when it is made: its back ends, the time of a row, the memory; hence its tier.

Kept as `backends.json` in the signed folder, so that a model card shows what was measured and not what was hoped.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from headway.models.parity import BackendReport

BACKENDS_FILE = "backends.json"
CPU_ROW_MS = 50.0
"""Milliseconds for one row on a CPU above which a GPU is suggested."""


class BackendMeasure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One back end."""

    name: str
    difference: float | None
    """Largest difference of a score from the reference, relative where the score is above 1; null: not a number."""
    equal: bool
    """Whether that is little enough to serve."""
    microseconds: dict[str, float]
    """Rows of a call → median time."""


class ComputeProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `backends.json` holds."""

    chosen: str
    """The fastest equal one."""
    row_ms: float
    """Median milliseconds of one row with it, on a CPU."""
    memory_bytes: int
    """Largest resident size of a process that loads it and warms up."""
    tier: str
    """cpu | gpu: what these numbers suggest."""
    backends: tuple[BackendMeasure, ...]
    """Fastest first."""

    def sentence(self, declared: str) -> str:
        """Return the suggestion in words, with a warning where the contract declares another tier."""
        said = f"{self.row_ms:.2g} ms per row on a CPU, {self.memory_bytes / 2**20:.0f} MiB: tier {self.tier} suggested"
        differs = self.tier != declared and not (declared == "edge" and self.tier == "cpu")
        return f"{said}, warning: the contract says {declared}" if differs else said


def profile_compute(reports: tuple[BackendReport, ...], memory: int) -> ComputeProfile:
    """Return the profile of reports in the order of `parity.compare` and the memory of `probe`, bytes."""
    row_ms = reports[0].microseconds[1] / 1e3
    return ComputeProfile(
        chosen=reports[0].name,
        row_ms=row_ms,
        memory_bytes=memory,
        tier="gpu" if row_ms > CPU_ROW_MS else "cpu",
        backends=tuple(
            BackendMeasure(
                name=report.name,
                difference=report.difference if report.difference != float("inf") else None,
                equal=report.equal,
                microseconds={str(size): value for size, value in report.microseconds.items()},
            )
            for report in reports
        ),
    )


def cost_note(reports: tuple[BackendReport, ...], memory: int, declared: str) -> str:
    """Return in a line what was measured, which back end serves, and which tier that suggests."""
    speeds = ", ".join(f"{report.name} {report.cost:.0f} µs" for report in reports)
    return f"{speeds}: {reports[0].name} serves; {profile_compute(reports, memory).sentence(declared)}"


def write_compute(folder: Path, profile: ComputeProfile) -> None:
    """Write `backends.json`, before the folder is signed."""
    (folder / BACKENDS_FILE).write_bytes(msgspec.json.encode(profile))


def read_compute(data: bytes) -> ComputeProfile:
    """Return the profile of a verified file."""
    return msgspec.json.decode(data, type=ComputeProfile)
