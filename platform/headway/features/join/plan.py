"""How the label rows of a view are cut into work: by the bucket of their key, and a large bucket by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.types import Int64
from headway.features.definitions import RowView, View
from headway.features.join.pieces import Span
from headway.features.join.runner import Job, Runner
from headway.features.join.work import Exchange, Work, bucket_column
from headway.features.lake.reader import ReadPlan
from headway.features.lake.tables import bucket_of

_READERS = 16
_EARLIEST = -(2**62)


def exchanged(view: View, plan: ReadPlan, runner: Runner) -> list[list[Any]]:
    """Return the source's rows by bucket of the view's key; nothing where the lake has them so already."""
    if view.source.bucket_by in view.entity.keys:
        return []
    groups = [plan.paths[first::_READERS] for first in range(min(_READERS, len(plan.paths)))] or [()]
    items = [Exchange(view=view, schema=plan.schema, paths=paths) for paths in groups]
    return runner.exchange(items, view.source.buckets)


def cut(
    view: View,
    plan: ReadPlan,
    parts: list[list[Any]],
    row_keys: pa.Table,
    at: Int64,
    cutoff: bool,
    runner: Runner,
    rows_per_task: int,
) -> Iterator[tuple[Int64, Job]]:
    """Yield (rows, job) per bucket, and per span of time where a bucket has many label rows.

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
            span=None,
        )
        theirs = [] if own or number < 0 else parts[number]
        if len(rows) <= rows_per_task:
            yield rows, Job(work=whole, parts=theirs)
            continue
        for some, job in by_time(whole, theirs, runner, rows_per_task):
            yield rows[some], job


def by_time(whole: Work, parts: Sequence[Any], runner: Runner, rows_per_task: int) -> Iterator[tuple[Int64, Job]]:
    """Cut a bucket into spans of time with equally many label rows.

    A span of a WindowView reads its horizon before the first label row. One of a RowView reads only what counts since
    then, and gets the last row of each key from every span before, however old it is.
    """
    spans = np.array_split(np.argsort(whole.at, kind="stable"), -(-len(whole.at) // rows_per_task))
    carried: list[Any] = []
    begin = _EARLIEST
    for position, rows in enumerate(spans):
        at, keys = whole.at[rows], whole.keys.take(pa.array(rows))
        first, end = int(at.min()), int(at.max()) + 1
        if not isinstance(whole.view, RowView):
            horizon = whole.view.horizon
            span = Span(begin=_EARLIEST if horizon is None else first - horizon, end=end)
            yield rows, Job(work=replace(whole, keys=keys, at=at, span=span), parts=parts)
            continue
        if first > begin and position > 0:
            later = _distinct(whole.keys.take(pa.array(np.concatenate(spans[position:]))))
            before = Span(begin=begin, end=first, known=whole.cutoff)
            last = replace(whole, keys=later, at=np.full(len(later), first - 1), span=before)
            carried = [*carried, runner.last(last, parts)]
            begin = first
        span = Span(begin=begin, end=end, known=whole.cutoff)
        yield rows, Job(work=replace(whole, keys=keys, at=at, span=span), parts=parts, carried=carried)


def _distinct(keys: pa.Table) -> pa.Table:
    return keys.group_by(keys.column_names, use_threads=False).aggregate([])
