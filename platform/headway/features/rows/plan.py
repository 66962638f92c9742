"""Where the walk over packed values puts bodies: columns of one machine type side by side, whatever their view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from headway.features.rows.codec import KIND_ORDER, Group, RowLayout


class Run(NamedTuple):
    """Columns of one machine type of one view."""

    view: int
    group: Group
    first: int
    """Row of the first of them in the block of their type."""
    last: int


class RowPlan:
    """Where everything goes."""

    def __init__(self, layouts: Sequence[RowLayout]) -> None:
        self.blocks: dict[str, tuple[int, int]] = {}
        """Machine type → its bytes in a row."""
        self.names: dict[str, list[str]] = {}
        """Machine type → its features."""
        self.nulls: dict[int, tuple[int, int]] = {}
        """View → its null bits in a row."""
        self.width = 0
        """Bytes of a row."""
        runs: list[Run] = []
        moves: list[list[tuple[int, int, int]]] = [[] for _ in layouts]
        for kind in KIND_ORDER:
            begin = self.width
            names: list[str] = []
            for i, layout in enumerate(layouts):
                for group in layout.groups:
                    if group.kind == kind:
                        runs.append(Run(i, group, len(names), len(names) + len(group.names)))
                        names += group.names
                        size = np.dtype(kind).itemsize * len(group.names)
                        moves[i].append((group.offset, size, self.width))
                        self.width += size
            if names:
                self.blocks[kind], self.names[kind] = (begin, self.width), names
        for i, layout in enumerate(layouts):
            size = layout.fixed - layout.nulls
            if size:
                self.nulls[i] = (self.width, self.width + size)
                moves[i].append((layout.nulls, size, self.width))
                self.width += size
        self.runs = tuple(runs)
        self.moves = np.array([move for own in moves for move in own], np.int64).reshape(-1, 3)
        """Places in the body, bytes, places in the row."""
        self.views = np.array(list(_described(layouts, [len(own) for own in moves])), np.int64)
        """What `scan` needs to know of each view."""


def _described(layouts: Sequence[RowLayout], moves: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the views by tag."""
    ends = np.cumsum(moves).tolist()
    for i in sorted(range(len(layouts)), key=lambda i: layouts[i].tag):
        layout = layouts[i]
        yield layout.tag, i, layout.fixed, int(bool(layout.strings)), ends[i] - moves[i], ends[i]
