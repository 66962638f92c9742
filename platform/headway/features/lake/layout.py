"""Which files of a lake table are merged with which: pure planning, so that few files are read and none often written.

Files of one bucket are sorted into tiers, each FAN times the size of the one below; FAN files of a tier become one of
the next. So the files of a bucket are bounded, and a row is rewritten about once per tier above the lowest. Now and
then a bucket is levelled: what is not full becomes one file, because a column sorted by key is read in half the time
from one long run.
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
LEVEL = 16
"""Files beside the largest one of a bucket are worth merging into it when they have this part of its bytes."""

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


def groups(files: Iterable[LakeFile], *, whole: bool = False, level: bool = False) -> list[list[LakeFile]]:
    """Return what is to be merged, each group of one bucket within TARGET bytes, the smallest files first.

    With `whole`, everything that is not half full yet is merged as far as it goes, without regard to tiers; with
    `level`, so it is in buckets where the rest is not small beside the largest of these files.
    """
    by_bucket: dict[int | None, list[LakeFile]] = defaultdict(list)
    for file in files:
        if file.weight < TARGET // 2:
            by_bucket[file.bucket].append(file)
    lots: dict[tuple[int, int], list[LakeFile]] = defaultdict(list)
    for bucket, own in by_bucket.items():
        all_of_them = whole or (level and _uneven(own))
        for file in own:
            lots[-1 if all_of_them else tier(file.weight), -1 if bucket is None else bucket].append(file)
    found = []
    for (number, _), lot in sorted(lots.items()):
        ordered = sorted(lot, key=lambda file: (file.weight, file.path))
        while len(ordered) >= (2 if number < 0 else FAN):
            count, size = 0, 0
            while count < len(ordered) and (count < 2 or size + ordered[count].weight <= TARGET):
                size += ordered[count].weight
                count += 1
            found.append(ordered[:count])
            ordered = ordered[count:]
    return found


def _uneven(files: Sequence[LakeFile]) -> bool:
    largest = max(file.weight for file in files)
    return LEVEL * (sum(file.weight for file in files) - largest) >= largest


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
