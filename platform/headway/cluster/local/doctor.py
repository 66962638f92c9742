"""Examines machine and home for what usually stands in the way, without changing anything."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from headway.cluster.local import process as processes
from headway.cluster.local.status import status
from headway.core.errors import HeadwayError
from headway.core.platform_state import PlatformState, read_state
from headway.core.project import Project
from headway.core.ray_session import OBJECT_STORE_BYTES
from headway.core.settings import Settings

_MEMORY_GIB = 6
_DISK_GIB = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    ok: bool
    found: str
    hint: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Return all findings; a check that cannot be made is a finding too."""
    return [
        _python(),
        _memory(),
        _shared_memory(),
        _disk(settings.home),
        _definitions(settings),
        *_state(settings),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(check="python", ok=sys.version_info >= (3, 11), found=version, hint="3.11 or newer is needed")


def _memory() -> Finding:
    gib = psutil.virtual_memory().available / 2**30
    return Finding(
        check="memory",
        ok=gib >= _MEMORY_GIB,
        found=f"{gib:.1f} GiB available, {os.cpu_count()} cores",
        hint="" if gib >= _MEMORY_GIB else f"the demo needs about {_MEMORY_GIB} GiB",
    )


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")  # noqa: S108 - the kernel's, only measured
    if not folder.is_dir():
        return Finding(check="shared memory", ok=True, found="not on this system")
    free = shutil.disk_usage(folder).free
    enough = free >= OBJECT_STORE_BYTES
    hint = "" if enough else "Ray falls back to slow files; in a container set --shm-size=2g"
    return Finding(check="shared memory", ok=enough, found=f"{free / 2**30:.1f} GiB free", hint=hint)


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    gib = shutil.disk_usage(place).free / 2**30
    hint = "" if gib >= _DISK_GIB else f"lake, logs and spilled objects need about {_DISK_GIB} GiB"
    return Finding(check="disk", ok=gib >= _DISK_GIB, found=f"{gib:.0f} GiB free at {place}", hint=hint)


def _definitions(settings: Settings) -> Finding:
    found = Project(settings.project).use_cases()
    hint = "" if found else "run in the repository root or give --project"
    names = ", ".join(found) or "none"
    return Finding(check="use cases", ok=bool(found), found=f"{names} in {settings.project}", hint=hint)


def _state(settings: Settings) -> list[Finding]:
    try:
        state: PlatformState | None = read_state(settings.home)
        overall = status(settings)
    except HeadwayError as error:
        left = processes.ours(settings.home)
        pids = ", ".join(str(item.pid) for item in left) or "none"
        return [
            Finding(check="state", ok=False, found=error.message, hint=error.hint or ""),
            Finding(check="processes", ok=not left, found=f"of this home: {pids}", hint="headway down --force"),
        ]
    stray = state is None and overall.processes > 0
    findings = [
        Finding(
            check="platform",
            ok=overall.state in ("up", "down"),
            found=f"{overall.state}, {overall.processes} processes, {overall.memory_mib} MiB",
            hint="headway down" if stray else "" if overall.state != "partial" else "headway up repairs it",
        )
    ]
    findings += [
        Finding(check=row.name, ok=False, found=f"{row.state}, log {row.log or 'none'}", hint="headway up repairs it")
        for row in overall.services
        if row.state != "up"
    ]
    return findings
