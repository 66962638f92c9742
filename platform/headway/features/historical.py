"""Training sets: label rows joined point-in-time with their features, by Ray tasks that each read their own bucket.

The large side never moves: event tables are bucketed by key in the lake, so the label rows are exchanged instead, once
per view, by the same bucket hash. Row numbers put every value back at its row: N rows in, N rows out, in order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Columns, Int64, Principal
from headway.features.arrow import events_of, keys, needed, numbers, times
from headway.features.definitions import FeatureService, WindowView
from headway.features.kernel import transform
from headway.features.lake import bucket_of
from headway.features.point_in_time import view_columns
from headway.features.reader import LakeReader, ReadPlan, read_files

if TYPE_CHECKING:
    import ray.data

Float32 = npt.NDArray[np.float32]
ROW_ID = "row_id"


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One bucket of one view: everything a task needs, by value."""

    view: WindowView
    events: pa.Table | None
    """The bucket's events where the table is bucketed by another key; None: read them from `paths`."""
    schema: pa.Schema
    paths: tuple[str, ...]
    keys: npt.NDArray[np.generic]
    at: Int64
    cutoff: bool


def _evaluate(work: _Work) -> Float32:
    """Return float32[features, rows] of a bucket."""
    events = work.events
    if events is None:
        events = read_files(work.schema, work.paths, _columns(work.view))
    found = view_columns(work.view, events_of(work.view, events), work.keys, work.at, cutoff=work.cutoff)
    return np.stack([found.columns[name] for name in work.view.features])


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
) -> ray.data.Dataset:
    """Return the spine with all columns of the service, as a Ray dataset of `blocks` blocks.

    Args:
        spine: Label rows: the service's keys and request columns, `event_time` (decision time), anything else.
        service: What to compute; its request columns come out in their declared types.
        reader: Access to the lake.
        principal: Who reads.
        purpose: Why.
        snapshots: Lake table → pinned snapshot id; tables not named are read at their current one.
        cutoff: Count events only once they are known.
        blocks: Blocks of the result; the values do not depend on it.

    Returns:
        The spine's columns, `row_id` (0 … n − 1, the spine's order), view features and transformation outputs.
    """
    import ray

    task = ray.remote(_evaluate)

    def run(work: list[_Work]) -> list[Float32]:
        references = [task.options(num_cpus=1, max_retries=3).remote(item) for item in work]
        results: list[Float32] = ray.get(references)
        return results

    plans = _plans(service, reader, principal, purpose, snapshots or {})
    table = _join(spine, service, plans, cutoff, run)
    size = max(1, -(-table.num_rows // blocks))
    pieces = [table.slice(begin, size) for begin in range(0, max(1, table.num_rows), size)]
    dataset = ray.data.from_arrow(pieces)
    if not service.transformations:
        return dataset
    packed = _by_value(service)

    def add(block: pa.Table) -> pa.Table:
        return _transformed(_load(packed), block)

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
) -> pa.Table:
    """Return what `training_set` returns, computed in this process: for small callers."""

    def run(work: list[_Work]) -> list[Float32]:
        return [_evaluate(item) for item in work]

    plans = _plans(service, reader, principal, purpose, snapshots or {})
    return _transformed(service, _join(spine, service, plans, cutoff, run))


def _plans(
    service: FeatureService, reader: LakeReader, principal: Principal, purpose: str, snapshots: Mapping[str, int]
) -> dict[str, ReadPlan]:
    """Return one allowed and audited read per source table."""
    sources = {view.source.table: view.source for view in service.views}
    return {
        name: reader.plan(source, principal, purpose, snapshot_id=snapshots.get(name))
        for name, source in sources.items()
    }


def _join(
    spine: pa.Table,
    service: FeatureService,
    plans: Mapping[str, ReadPlan],
    cutoff: bool,
    run: Callable[[list[_Work]], list[Float32]],
) -> pa.Table:
    """Return the spine with row ids, typed request columns and view features."""
    at = times(spine, EVENT_TIME)
    columns = {name: spine[name] for name in spine.column_names}
    for name, dtype in service.request.items():
        if name not in columns:
            raise InvalidValue(name, f"a request column of {service.name} that the spine lacks")
        if dtype != "string":
            columns[name] = pa.array(_request(spine, name, dtype))
    taken = set(columns) & {ROW_ID, *(name for view in service.views for name in view.features)}
    if taken:
        raise InvalidValue(sorted(taken)[0], "the spine already has a column of this name")
    columns[ROW_ID] = pa.array(np.arange(len(at), dtype=np.int64))
    work: list[_Work] = []
    places: list[tuple[WindowView, Int64]] = []
    for view in service.views:
        row_keys = keys(spine, view.entity.key, view.entity.dtype)
        for rows, item in _buckets(view, plans[view.source.table], row_keys, at, cutoff):
            work.append(item)
            places.append((view, rows))
    found = {name: np.empty(len(at), np.float32) for view in service.views for name in view.features}
    for (view, rows), values in zip(places, run(work), strict=True):
        for name, column in zip(view.features, values, strict=True):
            found[name][rows] = column
    columns.update({name: pa.array(column) for name, column in found.items()})
    return pa.table(columns)


def _buckets(
    view: WindowView, plan: ReadPlan, row_keys: npt.NDArray[np.generic], at: Int64, cutoff: bool
) -> Iterator[tuple[Int64, _Work]]:
    """Yield (rows, work) per bucket; rows without a key come with number −1 and no events."""
    source = view.source
    kind = pa.string() if view.entity.dtype == "string" else pa.int64()
    if len(at) == 0:
        return
    bucket = bucket_of(pa.array(row_keys, kind), source.buckets)
    own = source.bucket_by == view.entity.key
    events: pa.Table | None = None
    event_bucket = np.empty(0, np.int64)
    if not own:
        events = read_files(plan.schema, plan.paths, _columns(view))
        event_bucket = bucket_of(events[view.entity.key].combine_chunks().cast(kind), source.buckets)
    order = np.argsort(bucket, kind="stable")
    present, starts = np.unique(bucket[order], return_index=True)
    for number, rows in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
        part = None if events is None else events.filter(pa.array(event_bucket == number))
        yield (
            rows,
            _Work(
                view=view,
                events=part,
                schema=plan.schema,
                paths=plan.bucket(number) if own else (),
                keys=row_keys[rows],
                at=at[rows],
                cutoff=cutoff,
            ),
        )


def _columns(view: WindowView) -> list[str]:
    return [*needed(view), EVENT_TIME, KNOWN_TIME]


def _request(spine: pa.Table, name: str, dtype: str) -> npt.NDArray[np.generic]:
    values = numbers(spine, name, dtype)
    return values.astype(np.float32) if dtype == "float32" else values


def _transformed(service: FeatureService, table: pa.Table) -> pa.Table:
    """Return the table with the outputs of the service's transformations."""
    if not service.transformations:
        return table
    names = {name for step in service.transformations for name in step.inputs} & set(table.column_names)
    columns: Columns = {name: np.asarray(table[name].to_numpy()) for name in names}
    made = transform(service, columns, times(table, EVENT_TIME))
    for step in service.transformations:
        for name in step.outputs:
            table = table.append_column(name, pa.array(made[name]))
    return table


def _by_value(service: FeatureService) -> bytes:
    """Pickle a service with its functions' source modules, which workers need not be able to import."""
    from ray import cloudpickle

    modules = {step.function.__module__ for step in service.transformations}
    registered = [sys.modules[name] for name in sorted(modules - {"__main__"})]
    for module in registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(service)
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


def _load(packed: bytes) -> Any:
    from ray import cloudpickle

    return cloudpickle.loads(packed)
