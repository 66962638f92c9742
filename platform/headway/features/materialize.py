"""Fills the online store from the lake: for a new view, after the store was lost, or to catch up.

Bucket by bucket, so that memory is bounded by the largest one, and remembered with the snapshot that was read: an
interrupted run goes on where it stopped, and the next one reads only rows that were added since. Writes merge, so
newer values are never overwritten and repeating everything changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from headway.core.progress import Progress, RecordedProgress
from headway.core.times import KNOWN_TIME
from headway.core.types import Principal
from headway.features.arrow import times, with_times
from headway.features.definitions import View
from headway.features.evolution import version_name
from headway.features.lake.reader import LakeReader, ReadPlan, read_files
from headway.features.online_store import ALL, OnlineStore
from headway.features.write_report import WriteReport


def materialize(
    views: Sequence[View],
    reader: LakeReader,
    online: OnlineStore,
    principal: Principal,
    purpose: str,
    *,
    known_by: int | None = None,
    snapshots: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> dict[str, WriteReport]:
    """Write the events of views that the store does not have yet, and return a report per version (`version_name`).

    Args:
        views: What to fill.
        reader: Access to the lake.
        online: The store.
        principal: Who reads.
        purpose: Why.
        known_by: Leave out what was known later, for replays; everything is read then, and remembered only where
            nothing was left out.
        snapshots: Lake table → pinned snapshot id; others are read at their current one.
        progress: Where each view is a stage of its buckets.
        resume: With `known_by` too, read only what was added since the snapshot that is remembered.

    The watermark becomes `known_by`, or the largest known_time found.
    """
    pinned, shown = snapshots or {}, progress or RecordedProgress()
    added = _Added(reader, principal, purpose)
    reports = {}
    for view in views:
        with shown.stage(f"materialize {version_name(view)}") as stage:
            plan = reader.plan(view.source, principal, purpose, snapshot_id=pinned.get(view.source.table))
            before = online.materialized(view) if known_by is None or resume else {}
            whole, newest, left_out = WriteReport(), 0, 0
            buckets = sorted({number for _, number in plan.files})
            for done, bucket in enumerate(buckets):
                stage.advance(done, len(buckets))
                snapshot, known = before.get(bucket, before.get(ALL, (0, 0)))
                paths, stamp = added.since(view, plan, bucket, snapshot)
                found, later = _bucket(view, plan, paths, online, known_by, whole, stamp)
                known, left_out = max(known, found), left_out + later
                newest = max(newest, known)
                if known_by is None:
                    online.set_materialized(view, bucket, plan.snapshot_id, known)
            if not left_out:
                online.set_materialized(view, ALL, plan.snapshot_id, newest)
            if newest or known_by is not None:
                online.set_watermark(view, newest if known_by is None else known_by)
            stage.note(f"{whole.events:,} events of {whole.keys:,} keys")
        reports[version_name(view)] = whole
    return reports


def _bucket(
    view: View,
    plan: ReadPlan,
    paths: Sequence[str],
    online: OnlineStore,
    known_by: int | None,
    whole: WriteReport,
    stamp: int,
) -> tuple[int, int]:
    """Write the rows of some files that were ingested after the stamp, and add to the report.

    Returns the largest known_time and the rows known later.
    """
    events = read_files(plan.schema, paths, with_times(view), ingested_after=stamp or None)
    given = events.num_rows
    if known_by is not None and given:
        events = events.filter(pa.array(times(events, KNOWN_TIME) <= known_by))
    later = given - events.num_rows
    if events.num_rows == 0:
        return 0, later
    whole.add(online.write(view, events))
    return int(times(events, KNOWN_TIME).max()), later


class _Added:
    """What was added to snapshots that earlier runs have read, wherever compaction has put it since."""

    def __init__(self, reader: LakeReader, principal: Principal, purpose: str) -> None:
        self._reader, self._principal, self._purpose = reader, principal, purpose
        self._found: dict[tuple[str, int, int], tuple[frozenset[str], int]] = {}

    def since(self, view: View, plan: ReadPlan, bucket: int, snapshot: int) -> tuple[list[str], int]:
        """Return the files of a bucket to read, and the stamp after which rows in them are new.

        All files and 0 where nothing was read yet, or where nobody remembers the snapshot any more.
        """
        place = (plan.table, plan.snapshot_id, snapshot)
        if place not in self._found:
            stamp = (snapshot and self._reader.stamp(view.source, snapshot)) or 0
            self._found[place] = (self._with_rows_after(view, plan, stamp) if stamp else frozenset(plan.paths)), stamp
        paths, stamp = self._found[place]
        return [path for path in plan.bucket(bucket) if path in paths], stamp

    def _with_rows_after(self, view: View, plan: ReadPlan, stamp: int) -> frozenset[str]:
        later = self._reader.plan(
            view.source, self._principal, self._purpose, snapshot_id=plan.snapshot_id, ingested_after=stamp
        )
        return frozenset(later.paths)
