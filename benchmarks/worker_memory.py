"""Resident memory of Ray's worker processes while something runs.

Pages of the object store are left out: it is shared, bounded by its own setting, and spills. What a worker allocates
(RssAnon) and maps from files (RssFile, libraries too, counted for each worker) is summed over all workers at a moment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EVERY_S = 0.05
_WORKERS = ("ray::", "default_worker.py")


class Peak:
    """The largest sums that were sampled."""

    def __init__(self) -> None:
        self.workers = 0
        """Bytes of all workers together."""
        self.largest = 0
        """Bytes of the largest worker."""
        self.driver = 0
        """Bytes of this process."""
        self.samples = 0

    def sample(self) -> None:
        """Look once."""
        sizes = [_resident(pid) for pid in _workers(os.getpid())]
        self.workers = max(self.workers, sum(sizes))
        self.largest = max(self.largest, *sizes, 0)
        self.driver = max(self.driver, _resident(os.getpid()))
        self.samples += 1


@contextmanager
def sampled() -> Iterator[Peak]:
    """Sample twenty times a second; the workers are those of a Ray that this process started."""
    peak, stop = Peak(), threading.Event()

    def watch() -> None:
        while not stop.wait(_EVERY_S):
            peak.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        peak.sample()


def _workers(root: int) -> list[int]:
    """Return the Ray workers among the descendants of a process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
    inside = {root}
    while grown := {pid for pid, parent in parents.items() if parent in inside and pid not in inside}:
        inside |= grown
    return [pid for pid in inside if pid != root and any(mark in _command(pid) for mark in _WORKERS)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssFile:")))
