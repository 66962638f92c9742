"""Merges small files of a lake table: planned and written beside the commits of others, put in place by one of its own.

The long part, reading, sorting and writing files, changes nothing that anybody sees. Only the last part is a commit,
of tenths of a second at most; it holds as long as the files that were read are still there. Killed before it, a step
leaves files that nothing names and `remove_orphans` finds; the next step needs to know of no earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headway.features.lake.files import Write, described, in_order, live_files, read_rows, write_rows
from headway.features.lake.layout import LakeFile, groups, step
from headway.features.lake.manifests import replacing
from headway.features.lake.memory import COMPACTED, STAMP, stamp_of
from headway.features.lake.transaction import changing

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a step of compaction did; steps add up."""

    merged: int = 0
    """Files that were replaced."""
    written: int = 0
    rows: int = 0
    mebibytes: float = 0.0
    """Read."""
    left: int = 0
    """Groups of files still to be merged."""

    def __add__(self, after: Compacted) -> Compacted:
        """Return both together."""
        return Compacted(
            merged=self.merged + after.merged,
            written=self.written + after.written,
            rows=self.rows + after.rows,
            mebibytes=round(self.mebibytes + after.mebibytes, 3),
            left=after.left,
        )


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Groups of files of one table state, each to become one file."""

    table: Table
    groups: Sequence[Sequence[LakeFile]]
    files: dict[str, DataFile]
    """By path."""
    left: int
    """Groups that wait for another step."""


def plan_merge(table: Table, *, whole: bool, level: bool) -> Merge | None:
    """Return what one step merges of the newest snapshot; None where nothing is to be merged."""
    files = live_files(table, table.current_snapshot())
    planned = groups(map(described, files.values()), whole=whole, level=level)
    taken = step(planned)
    if not taken:
        return None
    return Merge(table=copy(table), groups=taken, files=files, left=len(planned) - len(taken))


def write_merged(merge: Merge, write: Write) -> list[DataFile]:
    """Write the rows of each group, sorted, into a file; nothing is committed."""
    made: list[DataFile] = []
    for group in merge.groups:
        rows = in_order(merge.table, read_rows(merge.table, [file.path for file in group]))
        made += write_rows(merge.table, rows, write)
    return made


def put_in_place(table: Table, merge: Merge, made: Sequence[DataFile]) -> Compacted:
    """Commit written files in place of those that were merged.

    Raises ValidationException of pyiceberg, with nothing changed, where one of these is not in the table any more.
    """
    properties = {COMPACTED: "true", STAMP: str(stamp_of(table.current_snapshot()))}
    replaced = [file for group in merge.groups for file in group]
    with changing(table) as change:
        update = replacing(change, properties)
        for file in replaced:
            update.delete_data_file(merge.files[file.path])
        for new in made:
            update.append_data_file(new)
        update.commit()
    return Compacted(
        merged=len(replaced),
        written=len(made),
        rows=sum(file.rows for file in replaced),
        mebibytes=round(sum(file.size for file in replaced) / 2**20, 3),
        left=merge.left,
    )
