"""Waiting for servers, and ports for them."""

from __future__ import annotations

import socket
import time
import urllib.request


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until_answers(url: str, seconds: float) -> None:
    """Return once a GET is answered with 200; RuntimeError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2.0) as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(f"{url} does not answer: {error}") from error
        time.sleep(0.1)


def until_predicts(port: int, request: bytes, seconds: float) -> None:
    """Return once a whole request is answered with 200; RuntimeError after `seconds`."""
    end = time.monotonic() + seconds
    said = b""
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
                connection.sendall(request)
                said = connection.recv(4_096)
                if said[9:12] == b"200":
                    return
        except OSError as error:
            said = str(error).encode()
        if time.monotonic() > end:
            raise RuntimeError(f"port {port} does not predict: {said[:500].decode(errors='replace')}")
        time.sleep(0.2)
