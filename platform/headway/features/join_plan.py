"""How the label rows of a view are cut into work: by the bucket of their key, and a large bucket by time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.types import Int64
from headway.features.definitions import View
from headway.features.join_runner import Runner
from headway.features.join_work import Exchange, Range, Work, bucket_column
from headway.features.lake import bucket_of
from headway.features.reader import ReadPlan

_READERS = 16


def exchanged(view: View, plan: ReadPlan, runner: Runner) -> list[list[Any]]:
    """Return the source's rows by bucket of the view's key; nothing where the lake has them so already."""
    if view.source.bucket_by in view.entity.keys:
        return []
    groups = [plan.paths[first::_READERS] for first in range(min(_READERS, len(plan.paths)))] or [()]
    return runner.exchange([Exchange(view=view, schema=plan.schema, paths=paths) for paths in groups])


def cut(
    view: View,
    plan: ReadPlan,
    parts: list[list[Any]],
    row_keys: pa.Table,
    at: Int64,
    cutoff: bool,
    rows_per_task: int,
) -> Iterator[tuple[Int64, Work, list[Any]]]:
    """Yield (rows, work, exchanged parts) per bucket, and per span of time where a bucket has many label rows.

    Rows without a key come with bucket −1 and no events; `parts` are what `exchanged` returned for the view.
    """
    if len(at) == 0:
        return
    own = not parts
    bucket = bucket_of(row_keys[bucket_column(view)].combine_chunks(), view.source.buckets)
    order = np.argsort(bucket, kind="stable")
    present, starts = np.unique(bucket[order], return_index=True)
    for number, rows in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
        whole = Work(
            view=view,
            schema=plan.schema,
            paths=plan.bucket(number) if own else (),
            keys=row_keys.take(pa.array(rows)),
            at=at[rows],
            cutoff=cutoff,
            event_time=None,
        )
        theirs = [] if own or number < 0 else parts[number]
        if len(rows) <= rows_per_task:
            yield rows, whole, theirs
            continue
        for span in np.array_split(np.argsort(whole.at, kind="stable"), -(-len(rows) // rows_per_task)):
            some = whole.at[span]
            keys = whole.keys.take(pa.array(span))
            yield rows[span], replace(whole, keys=keys, at=some, event_time=_needed(view, some)), theirs


def _needed(view: View, at: Int64) -> Range:
    """Return the event times that label rows of these times may need.

    A RowView that never expires needs each key's last row before the first of them, however old: no lower bound.
    A redelivered event is taken to have the event_time of its first delivery.
    """
    low = -(2**62) if view.horizon is None else int(at.min()) - view.horizon
    return low, int(at.max()) + 1
