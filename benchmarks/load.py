"""A closed-loop HTTP load generator on raw connections: cheap enough not to be what is measured.

`python -m benchmarks.load HOST PORT CONNECTIONS SECONDS FILE`, where FILE holds whole requests, each after its length
(4 bytes, little-endian). It prints one JSON object; `cpu` is its own share of a core, and near 1 the run is void.
"""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvloop

ROOT = Path(__file__).resolve().parent.parent
_LENGTH = b"content-length:"
VOID_ABOVE = 0.9


def whole(buffer: bytes) -> bytes | None:
    """Return the head of an answer, in lower case, once all of the answer is there."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end].lower()
    at = head.find(_LENGTH)
    if at < 0:  # chunked
        return head if buffer.endswith(b"0\r\n\r\n") else None
    line = head.find(b"\r\n", at)
    length = int(head[at + len(_LENGTH) : line if line >= 0 else len(head)])
    return head if len(buffer) >= end + 4 + length else None


class Client(asyncio.Protocol):
    """One connection that always has one request under way."""

    def __init__(self, requests: list[bytes], first: int, latencies: list[float], errors: list[str]) -> None:
        self._requests = requests
        self._next = first
        self._latencies = latencies
        self._errors = errors
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's do not inherit from asyncio's
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """A server that hangs up is an error."""
        if not self.stopped:
            self._errors.append(f"connection lost: {exc}")

    def data_received(self, data: bytes) -> None:
        """Finish the answer and send the next request."""
        self._buffer = self._buffer + data if self._buffer else data
        head = whole(self._buffer)
        if head is None:
            return
        if head[9:12] != b"200":
            self._errors.append(self._buffer[-300:].decode(errors="replace"))
        self._latencies.append(time.perf_counter() - self._sent)
        self._buffer = b""
        if not self.stopped:
            self._send()

    def stop(self) -> None:
        """Hang up."""
        self.stopped = True
        if self._transport is not None:
            self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._sent = time.perf_counter()
        self._transport.write(request)


async def drive(host: str, port: int, connections: int, seconds: float, requests: list[bytes]) -> dict[str, object]:
    """Return rate, latencies and errors of one run; the first half second is not counted."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    errors: list[str] = []
    clients = []
    for index in range(connections):
        first = index * (len(requests) // connections or 1)

        def make(first: int = first) -> Client:
            return Client(requests, first, latencies, errors)

        clients.append((await loop.create_connection(make, host, port))[1])
    await asyncio.sleep(0.5)
    before = len(latencies)
    latencies.clear()
    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    done = np.array(latencies) * 1e3
    for client in clients:
        client.stop()
    quantiles = np.quantile(done, [0.5, 0.95, 0.99]) if len(done) else [float("nan")] * 3
    return {
        "rps": len(done) / wall,
        "p50_ms": float(quantiles[0]),
        "p95_ms": float(quantiles[1]),
        "p99_ms": float(quantiles[2]),
        "requests": len(done),
        "answered": before + len(done),
        "errors": len(errors),
        "first_error": errors[0] if errors else "",
        "cpu": cpu / wall,
    }


def write_requests(path: Path, requests: list[bytes]) -> None:
    """Write the file that the generator reads."""
    path.write_bytes(b"".join(struct.pack("<I", len(item)) + item for item in requests))


def read_requests(path: Path) -> list[bytes]:
    """Read it."""
    data, at, requests = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        requests.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Return one whole HTTP request."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def measure(system: str, port: int, connections: int, seconds: float, requests: Path) -> dict[str, Any]:
    """Run the generator in a process of its own; raise where a request failed or the generator was what was measured.

    `answered` counts the warm-up too.
    """
    command = [sys.executable, "-m", "benchmarks.load", "127.0.0.1", str(port), str(connections), str(seconds)]
    done = subprocess.run(
        [*command, str(requests)], cwd=ROOT, capture_output=True, check=True, timeout=seconds + 60, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if result["errors"]:
        raise RuntimeError(f"{system}: {result['errors']} errors, first: {result['first_error']}")
    require_spare(system, result["cpu"])
    return result


def require_spare(system: str, cpu: float) -> None:
    """Raise where the generator used nearly all of its core."""
    if cpu > VOID_ABOVE:
        raise RuntimeError(f"{system}: the generator used {cpu:.0%} of a core: the run is void")


def main() -> None:
    """Run once."""
    host, port, connections, seconds, path = sys.argv[1:6]
    work = drive(host, int(port), int(connections), float(seconds), read_requests(Path(path)))
    print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
