"""The birth of a process in terms that no clock can move: which boot of the kernel, and which tick of it.

A creation time in seconds shifts when the wall clock is set or a machine is resumed, and a pid is given out again. The
record lies beside the service's log, since the log is what the state file says of a service besides its pid.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from headway.core.platform_state import ServiceState

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DEAD = ("Z", "X", "x")
"""States of `proc_pid_stat(5)` in which a process runs no more."""


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """What tells a process from all others, of this boot and of earlier ones."""

    boot: str
    """The kernel's random id of the boot."""
    ticks: int
    """From the boot to the start, in the kernel's clock ticks: `starttime` of `proc_pid_stat(5)`."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    started: float
    birth: Birth


def running(pid: int) -> Birth | None:
    """Return the birth of a process that runs; None if it does not, or where there is no Linux `/proc`."""
    try:
        boot = _BOOT_ID.read_text().strip()
        # the name before the last parenthesis is free text
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in _DEAD else Birth(boot=boot, ticks=int(fields[19]))


def keep(service: ServiceState) -> None:
    """Write down the birth of a service that was just started; nothing where there is no Linux `/proc`."""
    birth = running(service.pid)
    if birth is not None:
        kept = _Kept(pid=service.pid, started=service.started, birth=birth)
        _path(service).write_bytes(msgspec.json.encode(kept))


def kept(service: ServiceState) -> Birth | None:
    """Return what was written down; None for a service of an older version, or after a kill half-way."""
    try:
        found = msgspec.json.decode(_path(service).read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError):
        return None
    return found.birth if (found.pid, found.started) == (service.pid, service.started) else None


def _path(service: ServiceState) -> Path:
    return Path(f"{service.log}.birth")
