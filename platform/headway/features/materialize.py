"""Fills the online store from the lake: for a new view, or after the store was lost. Repeating it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Principal
from headway.features.arrow import needed, times
from headway.features.definitions import FeatureService, WindowView
from headway.features.online_store import OnlineStore, WriteReport
from headway.features.reader import LakeReader, read_files


def materialize(
    service: FeatureService,
    reader: LakeReader,
    online: OnlineStore,
    principal: Principal,
    purpose: str,
    *,
    known_by: int | None = None,
    snapshots: Mapping[str, int] | None = None,
) -> dict[str, WriteReport]:
    """Write the events of every view of a service, bucket by bucket, and return a report per view.

    `known_by` leaves out what was known later, for replays; the watermark becomes `known_by`, or the largest known_time
    found. Memory is bounded by the largest bucket.
    """
    pinned = snapshots or {}
    return {
        view.name: _view(view, reader, online, principal, purpose, known_by, pinned.get(view.source.table))
        for view in service.views
    }


def _view(
    view: WindowView,
    reader: LakeReader,
    online: OnlineStore,
    principal: Principal,
    purpose: str,
    known_by: int | None,
    snapshot_id: int | None,
) -> WriteReport:
    plan = reader.plan(view.source, principal, purpose, known_by=known_by, snapshot_id=snapshot_id)
    columns = list(dict.fromkeys([*needed(view), EVENT_TIME, KNOWN_TIME]))
    whole = WriteReport()
    newest = 0
    for bucket in sorted({number for _, number in plan.files}):
        events = read_files(plan.schema, plan.bucket(bucket), columns, known_by=known_by)
        if events.num_rows == 0:
            continue
        part = online.write(view, events)
        newest = max(newest, int(times(events, KNOWN_TIME).max()))
        whole.keys += part.keys
        whole.events += part.events
        whole.pruned += part.pruned
        whole.overflowed += part.overflowed
        whole.retries += part.retries
    online.set_watermark(view, newest if known_by is None else known_by)
    return whole
