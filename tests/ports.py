"""Ports for servers that take a number and no socket."""

from __future__ import annotations

import random

from headway.cluster.local.ports import is_free

_RANGE = range(28_000, 32_000)
"""Below those that the kernel gives to connections, and above those where platforms begin to look."""


def free_ports(count: int) -> list[int]:
    """Return so many different ports on which nobody listens, drawn so that those who draw at once seldom meet."""
    draw = random.SystemRandom()
    found: set[int] = set()
    while len(found) < count:
        port = draw.choice(_RANGE)
        if is_free(port):
            found.add(port)
    return list(found)
