"""Where a use case's last run stands, so that one which was killed or failed is gone on with and not begun anew."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headway.core.times import HOUR
from headway.governance.files import write_atomic

FILE = "run.json"
RESUME_WITHIN = HOUR
"""A run that began longer ago is gone on with only where its `as_of` is asked for."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    run: str
    key: str
    """Hash of job, contract, code and packages: with another key it is another training."""
    as_of: int
    """UTC microseconds."""
    started: int
    """UTC microseconds."""
    finished: bool = False
    """Whether it came to its end: a registered version, or a gate that does not hold."""
    reserving: bool = False
    """Whether it was about to reserve a version."""
    reserved: str = ""
    """The version reserved; filled or given up before the next one is."""


def read_run(root: Path) -> RunRecord | None:
    """Return the last run; None where there is none, or its record is torn: then a new one begins."""
    try:
        return msgspec.json.decode((root / FILE).read_bytes(), type=RunRecord)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeError):
        return None


def write_run(root: Path, record: RunRecord) -> None:
    """Replace the record in one step."""
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(root / FILE, msgspec.json.encode(record))


def unfinished(root: Path, key: str, now: int, as_of: int | None = None) -> RunRecord | None:
    """Return the run to go on with: the last one, not at its end, of this key and `as_of`.

    Without `as_of` only one that began within the last hour: older ones would train on old data unasked.
    """
    last = read_run(root)
    if last is None or last.finished or last.key != key:
        return None
    if as_of is None:
        return last if now - last.started <= RESUME_WITHIN else None
    return last if last.as_of == as_of else None
