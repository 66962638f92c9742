"""What goes wrong under a lake: another process holds the catalog, the disk is small or full."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextmanager
def held(catalog: Path) -> Iterator[None]:
    """Another process that holds the catalog's lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(catalog)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("\n", timeout=20)


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of 3 MiB; skips the test where this account may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="small"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "headway-test", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip("mounting a small file system needs rights that this account lacks")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave one page of a disk free."""
    space = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (space.f_bavail * space.f_frsize - 4_096))
    yield
    filler.unlink()
