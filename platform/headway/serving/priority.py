"""Classes of callers, and the rule by which they share a replica: start-time fair queueing by rows.

While calls of several classes wait, each class is served rows in proportion to its weight, so that a flood of normal
calls delays a high one by little more than the batch that runs, and high ones never starve the others (Goyal, Vin and
Cheng, "Start-time fair queueing", 1997: two classes that both wait differ in rows served per weight by at most one call
of each). A class that waits alone has the whole replica.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from enum import IntEnum
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")
_HIGH = "priority:high"


class Priority(IntEnum):
    """Smaller is served first among equals."""

    HIGH = 0
    """Tokens with the scope `priority:high`."""
    NORMAL = 1
    LOW = 2
    """Replays: the past can wait for the present."""


WEIGHTS = (16.0, 4.0, 1.0)
"""Rows served of each class while all three wait: high, normal, low."""


def priority_of(scopes: Collection[str], *, replayed: bool) -> Priority:
    """Return the class of a call."""
    if replayed:
        return Priority.LOW
    return Priority.HIGH if _HIGH in scopes else Priority.NORMAL


class FairQueue(Generic[T]):
    """A queue per class; whoever takes a call out says how many rows it had."""

    def __init__(self) -> None:
        self.queues: tuple[deque[T], ...] = tuple(deque() for _ in Priority)
        self._start = [0.0] * len(Priority)
        """Virtual start of each class's head; of an empty class, where its last call ended."""
        self._virtual = 0.0
        """Virtual start of the call served last."""

    def __len__(self) -> int:
        return sum(len(queue) for queue in self.queues)

    def push(self, item: T, priority: int) -> None:
        """Add a call to its class."""
        queue = self.queues[priority]
        if not queue and self._start[priority] < self._virtual:
            self._start[priority] = self._virtual  # time away is not saved up
        queue.append(item)

    def turn(self) -> tuple[int, float]:
        """Return the class whose turn it is and for how many rows at least; -1 when nothing waits.

        After that many rows another class may be due: ask again. Alone, a class has no end of rows.
        """
        first, tag, other = -1, inf, inf
        for priority, queue in enumerate(self.queues):
            if not queue:
                continue
            start = self._start[priority]
            if start < tag:
                first, tag, other = priority, start, tag
            elif start < other:
                other = start
        return (first, (other - tag) * WEIGHTS[first]) if first >= 0 else (-1, 0.0)

    def served(self, priority: int, rows: int, last: int) -> None:
        """Account for `rows` rows taken from a class in one turn, `last` of them in its last call."""
        weight = WEIGHTS[priority]
        self._start[priority] += rows / weight
        self._virtual = self._start[priority] - last / weight
