"""The birth of a process in terms that no clock can move: which boot of the kernel, and which tick of it.

A creation time in seconds shifts when the wall clock is set or a machine is resumed, and a pid is given out again.
"""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DEAD = ("Z", "X", "x")
"""States of `proc_pid_stat(5)` in which a process runs no more."""


def birth(pid: int) -> str:
    """Return `<boot id>:<ticks from boot to start>` of a running process; empty if it is none, or without `/proc`."""
    try:
        boot = _BOOT_ID.read_text().strip()
        # the name before the last parenthesis is free text
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _DEAD else f"{boot}:{fields[19]}"
