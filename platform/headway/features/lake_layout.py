"""Which files of a lake table are merged with which: pure planning, so that few files are read and none often written.

Files of one bucket are sorted into tiers, each FAN times the size of the one below; FAN files of a tier become one of
the next. So the files of a bucket are bounded, and a row is rewritten about once per tier above the lowest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FAN = 4
SMALLEST = 2 * 1024 * 1024
"""Bytes: all files below are of the lowest tier, because opening a file costs as much as reading so many."""
TARGET = 32 * 1024 * 1024
"""Bytes of a full file, and the most that one step reads: about a second of work."""

ROW_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class LakeFile:
    """A data file."""

    path: str
    bucket: int | None
    """None: the table has no buckets, or the key is null."""
    size: int
    """Bytes, compressed."""
    rows: int

    @property
    def weight(self) -> int:
        """The work of rewriting it in bytes; a row counts at least ROW_BYTES, however well it is compressed."""
        return max(self.size, ROW_BYTES * self.rows)


def tier(weight: int) -> int:
    """Return the tier of a file by its weight."""
    number, bound = 0, SMALLEST
    while weight >= bound:
        number, bound = number + 1, bound * FAN
    return number


def groups(files: Iterable[LakeFile], *, whole: bool = False) -> list[list[LakeFile]]:
    """Return what is to be merged, each group of one bucket within TARGET bytes, the smallest files first.

    With `whole`, everything that is not half full yet is merged as far as it goes, without regard to tiers.
    """
    lots: dict[tuple[int, int | None], list[LakeFile]] = defaultdict(list)
    for file in files:
        if file.weight < TARGET // 2:
            lots[0 if whole else tier(file.weight), file.bucket].append(file)
    found = []
    for _, lot in sorted(lots.items(), key=lambda item: (item[0][0], -1 if item[0][1] is None else item[0][1])):
        ordered = sorted(lot, key=lambda file: (file.weight, file.path))
        while len(ordered) >= (2 if whole else FAN):
            count, size = 0, 0
            while count < len(ordered) and (count < 2 or size + ordered[count].weight <= TARGET):
                size += ordered[count].weight
                count += 1
            found.append(ordered[:count])
            ordered = ordered[count:]
    return found


def step(planned: Sequence[Sequence[LakeFile]], budget: int = TARGET) -> list[Sequence[LakeFile]]:
    """Return the first groups that fit the bytes of one step, at least one."""
    taken: list[Sequence[LakeFile]] = []
    size = 0
    for group in planned:
        size += sum(file.weight for file in group)
        if taken and size > budget:
            break
        taken.append(group)
    return taken
