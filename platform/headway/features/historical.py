"""Training sets: label rows joined point-in-time with their features, by Ray tasks that each read their own bucket.

The large side never moves: event tables are bucketed by key in the lake, so the label rows are exchanged instead, once
per view, by the same bucket hash. Where a view's key is not the table's, tasks exchange the source too; it never passes
through the caller. Row numbers put every value back at its row: N rows in, N rows out, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.errors import InvalidValue, names_near
from headway.core.times import EVENT_TIME
from headway.core.types import Int64, Principal
from headway.features.arrow import ARROW_TYPES, numbers, require_unique, times
from headway.features.definitions import AliasedView, FeatureService, RowView, View
from headway.features.join.plan import cut, exchanged
from headway.features.join.point_in_time import in_place
from headway.features.join.runner import Here, Job, OnRay, Runner
from headway.features.join.table_transform import load_service, pack_service, transformed
from headway.features.join.work import key_table
from headway.features.lake.reader import LakeReader, ReadPlan

if TYPE_CHECKING:
    import ray.data

ROW_ID = "row_id"
ROWS_PER_TASK = 2_000_000


def training_set(
    spine: pa.Table,
    service: FeatureService,
    reader: LakeReader,
    principal: Principal,
    purpose: str,
    *,
    snapshots: Mapping[str, int] | None = None,
    cutoff: bool = True,
    blocks: int = 8,
    rows_per_task: int = ROWS_PER_TASK,
) -> ray.data.Dataset:
    """Return the spine with all columns of the service, as a Ray dataset of `blocks` blocks.

    Args:
        spine: Label rows: the service's key columns and request columns, `event_time` (decision time), anything else.
        service: What to compute; its request columns come out in their declared types.
        reader: Access to the lake.
        principal: Who reads.
        purpose: Why.
        snapshots: Lake table → pinned snapshot id; tables not named are read at their current one.
        cutoff: Count events only once they are known.
        blocks: Blocks of the result; the values do not depend on it.
        rows_per_task: A bucket with more label rows (a hot key) is worked on by several tasks, each on a span of time
            with the source rows that it needs.

    Returns:
        The spine's columns, `row_id` (0 … n − 1, the spine's order), view features and transformation outputs.
    """
    import ray

    plans = _plans(service, reader, principal, purpose, snapshots or {})
    table = _join(spine, service, plans, cutoff, OnRay(), rows_per_task)
    size = max(1, -(-table.num_rows // blocks))
    pieces = [table.slice(begin, size) for begin in range(0, max(1, table.num_rows), size)]
    dataset = ray.data.from_arrow(pieces)
    if not service.transformations:
        return dataset
    packed = pack_service(service)

    def add(block: pa.Table) -> pa.Table:
        return transformed(load_service(packed), block)

    return dataset.map_batches(add, batch_format="pyarrow", batch_size=None)


def offline_features(
    spine: pa.Table,
    service: FeatureService,
    reader: LakeReader,
    principal: Principal,
    purpose: str,
    *,
    snapshots: Mapping[str, int] | None = None,
    cutoff: bool = True,
    rows_per_task: int = ROWS_PER_TASK,
) -> pa.Table:
    """Return what `training_set` returns, computed in this process: for small callers."""
    plans = _plans(service, reader, principal, purpose, snapshots or {})
    return transformed(service, _join(spine, service, plans, cutoff, Here(), rows_per_task))


def _plans(
    service: FeatureService, reader: LakeReader, principal: Principal, purpose: str, snapshots: Mapping[str, int]
) -> dict[str, ReadPlan]:
    """Return one allowed and audited read per source table."""
    sources = {view.source.table: view.source for view in service.stored}
    return {
        name: reader.plan(source, principal, purpose, snapshot_id=snapshots.get(name))
        for name, source in sources.items()
    }


def _join(
    spine: pa.Table,
    service: FeatureService,
    plans: Mapping[str, ReadPlan],
    cutoff: bool,
    runner: Runner,
    rows_per_task: int,
) -> pa.Table:
    """Return the spine with row ids, typed request columns and view features."""
    require_unique(spine.column_names)
    at = times(spine, EVENT_TIME)
    columns = {name: spine[name] for name in spine.column_names}
    for name, dtype in service.request.items():
        if name not in columns:
            near = names_near(name, columns)
            raise InvalidValue(name, f"a request column of {service.name} that the spine lacks{near}")
        if dtype != "string":
            columns[name] = pa.array(_request(spine, name, dtype))
    outputs = (name for step in service.transformations for name in step.outputs)
    taken = set(columns) & {ROW_ID, *(name for view in service.views for name in view.features), *outputs}
    if taken:
        raise InvalidValue(
            sorted(taken)[0], "the spine already has a column of this name", hint="drop it, or give it another name"
        )
    columns[ROW_ID] = pa.array(np.arange(len(at), dtype=np.int64))
    jobs: list[Job] = []
    places: list[list[Int64]] = []
    ready = {view.name: exchanged(view, plans[view.source.table], runner) for view in service.stored if len(at)}
    for view in service.views:
        stored = view.stored
        row_keys, parts = key_table(spine, view.keys, stored.entity), ready.get(stored.name, [])
        made = list(cut(stored, plans[stored.source.table], parts, row_keys, at, cutoff, runner, rows_per_task))
        places.append([rows for rows, _ in made])
        jobs += [job for _, job in made]
    results = runner.evaluate(jobs)
    for view, rows in zip(service.views, places, strict=True):
        found = [next(results) for _ in rows]
        columns.update(_in_place(view, found, rows, len(at)))
    return pa.table(columns)


def _in_place(
    view: View | AliasedView, found: list[pa.Table], places: list[Int64], n: int
) -> dict[str, pa.ChunkedArray]:
    """Return the view's features in the order of the label rows."""
    stored = view.stored
    dtypes = stored.dtypes if isinstance(stored, RowView) else ("float32",) * len(stored.features)
    schema = pa.schema([(name, ARROW_TYPES[dtype]) for name, dtype in zip(stored.features, dtypes, strict=True)])
    return dict(zip(view.features, in_place(schema, found, places, n).columns, strict=True))


def _request(spine: pa.Table, name: str, dtype: str) -> npt.NDArray[np.generic]:
    values = numbers(spine, name, dtype)
    return values.astype(np.float32) if dtype == "float32" else values
