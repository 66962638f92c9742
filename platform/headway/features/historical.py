"""Training sets: label rows joined point-in-time with their features, by Ray tasks that each read their own bucket.

The large side never moves: event tables are bucketed by key in the lake, so the label rows are exchanged instead, once
per view, by the same bucket hash. Where a view's key is not the table's, tasks exchange the source too; it never passes
through the caller. Row numbers put every value back at its row: N rows in, N rows out, in order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.errors import InvalidValue, names_near
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Columns, Int64, Principal
from headway.features.arrow import ARROW_TYPES, cast, events_of, needed, numbers, require_unique, times
from headway.features.definitions import FeatureService, RowView, View, WindowView
from headway.features.kernel import transform
from headway.features.lake import bucket_of
from headway.features.point_in_time import Piece, in_place, row_columns, view_columns
from headway.features.reader import LakeReader, ReadPlan, read_files

if TYPE_CHECKING:
    import ray.data

ROW_ID = "row_id"
ROWS_PER_TASK = 2_000_000
_READERS = 16
_Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Some label rows of one bucket of one view: everything a task needs, by value."""

    view: View
    schema: pa.Schema
    paths: tuple[str, ...]
    """The bucket's files; empty where its rows come from an exchange."""
    keys: pa.Array
    at: Int64
    cutoff: bool
    event_time: _Range | None
    """Half-open range of the source rows that these label rows may need; None: all."""


@dataclass(frozen=True, kw_only=True)
class _Exchange:
    """Files of a source that is bucketed by another key than the view's."""

    view: View
    schema: pa.Schema
    paths: tuple[str, ...]


class _Runner(Protocol):
    """Where the work happens: in this process, or in Ray tasks."""

    def exchange(self, items: list[_Exchange]) -> list[list[Any]]:
        """Return what is to be handed to `evaluate` as parts: per bucket, one from each item."""
        ...

    def evaluate(self, work: list[tuple[_Work, list[Any]]]) -> Iterator[pa.Table]:
        """Return the features of each piece of work, in order."""
        ...


class _Here:
    """Runs everything in this process."""

    def exchange(self, items: list[_Exchange]) -> list[list[Any]]:
        return [list(parts) for parts in zip(*(_split(item) for item in items), strict=True)]

    def evaluate(self, work: list[tuple[_Work, list[Any]]]) -> Iterator[pa.Table]:
        return (_evaluate(item, *parts) for item, parts in work)


class _OnRay:
    """Runs everything in tasks; the source's rows stay in the object store, which spills to disk."""

    def exchange(self, items: list[_Exchange]) -> list[list[Any]]:
        import ray

        buckets = items[0].view.source.buckets
        task = ray.remote(_split).options(num_cpus=1, max_retries=3, num_returns=buckets)
        made = [task.remote(item) for item in items]
        per_item = [[one] for one in made] if buckets == 1 else made
        return [list(parts) for parts in zip(*per_item, strict=True)]

    def evaluate(self, work: list[tuple[_Work, list[Any]]]) -> Iterator[pa.Table]:
        import ray

        task = ray.remote(_evaluate).options(num_cpus=1, max_retries=3)
        references = [task.remote(item, *parts) for item, parts in work]
        for position, reference in enumerate(references):
            yield ray.get(reference)
            references[position] = None  # its blocks may go


def _split(item: _Exchange) -> Any:
    """Return a table per bucket of the view's key, as a tuple where there are several buckets."""
    table = read_files(item.schema, item.paths, _columns(item.view))
    buckets = item.view.source.buckets
    bucket = bucket_of(_key(table, item.view.entity.key, item.view.entity.dtype), buckets)
    parts = tuple(table.filter(pa.array(bucket == number)) for number in range(buckets))
    return parts[0] if buckets == 1 else parts


def _evaluate(work: _Work, *parts: pa.Table) -> pa.Table:
    """Return one column per feature of the view."""
    view = work.view
    if isinstance(view, RowView):
        pieces = [_inside(part, work.event_time) for part in parts] or [_file(work, path) for path in work.paths]
        return row_columns(view, pieces or [_file(work, None)], work.keys, work.at, cutoff=work.cutoff).table
    if parts:
        table = pa.concat_tables(_inside(part, work.event_time)(_columns(view)) for part in parts)
    else:
        table = read_files(work.schema, work.paths, _columns(view), event_time=work.event_time)
    found = view_columns(view, events_of(view, table), _plain(work.keys), work.at, cutoff=work.cutoff)
    return pa.table({name: found.columns[name] for name in view.features})


def _file(work: _Work, path: str | None) -> Piece:
    paths = () if path is None else (path,)
    return lambda columns: read_files(work.schema, paths, columns, event_time=work.event_time)


def _inside(part: pa.Table, event_time: _Range | None) -> Piece:
    if event_time is not None:
        at = part[EVENT_TIME].to_numpy()
        part = part.filter(pa.array((at >= event_time[0]) & (at < event_time[1])))
    piece: Piece = part.select
    return piece


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
        spine: Label rows: the service's keys and request columns, `event_time` (decision time), anything else.
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
    table = _join(spine, service, plans, cutoff, _OnRay(), rows_per_task)
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
    rows_per_task: int = ROWS_PER_TASK,
) -> pa.Table:
    """Return what `training_set` returns, computed in this process: for small callers."""
    plans = _plans(service, reader, principal, purpose, snapshots or {})
    return _transformed(service, _join(spine, service, plans, cutoff, _Here(), rows_per_task))


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
    runner: _Runner,
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
    made = (name for step in service.transformations for name in step.outputs)
    taken = set(columns) & {ROW_ID, *(name for view in service.views for name in view.features), *made}
    if taken:
        raise InvalidValue(
            sorted(taken)[0], "the spine already has a column of this name", hint="drop it, or give it another name"
        )
    columns[ROW_ID] = pa.array(np.arange(len(at), dtype=np.int64))
    work: list[tuple[_Work, list[Any]]] = []
    places: dict[str, list[Int64]] = {view.name: [] for view in service.views}
    for view in service.views:
        row_keys = _key(spine, view.entity.key, view.entity.dtype)
        for rows, item, parts in _buckets(view, plans[view.source.table], row_keys, at, cutoff, runner, rows_per_task):
            work.append((item, parts))
            places[view.name].append(rows)
    results = runner.evaluate(work)
    for view in service.views:
        found = [next(results) for _ in places[view.name]]
        columns.update(_in_place(view, found, places[view.name], len(at)))
    return pa.table(columns)


def _in_place(view: View, found: list[pa.Table], places: list[Int64], n: int) -> dict[str, pa.ChunkedArray]:
    """Return the view's features in the order of the label rows."""
    dtypes = view.dtypes if isinstance(view, RowView) else ("float32",) * len(view.features)
    schema = pa.schema([(name, ARROW_TYPES[dtype]) for name, dtype in zip(view.features, dtypes, strict=True)])
    return dict(zip(view.features, in_place(schema, found, places, n).columns, strict=True))


def _buckets(
    view: View,
    plan: ReadPlan,
    row_keys: pa.Array,
    at: Int64,
    cutoff: bool,
    runner: _Runner,
    rows_per_task: int,
) -> Iterator[tuple[Int64, _Work, list[Any]]]:
    """Yield (rows, work, exchanged parts) per bucket, and per span of time where a bucket has many label rows.

    Rows without a key come with bucket −1 and no events.
    """
    source = view.source
    if len(at) == 0:
        return
    own = source.bucket_by == view.entity.key
    parts: list[list[Any]] = []
    if not own:
        groups = [plan.paths[first::_READERS] for first in range(min(_READERS, len(plan.paths)))] or [()]
        parts = runner.exchange([_Exchange(view=view, schema=plan.schema, paths=paths) for paths in groups])
    bucket = bucket_of(row_keys, source.buckets)
    order = np.argsort(bucket, kind="stable")
    present, starts = np.unique(bucket[order], return_index=True)
    for number, rows in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
        whole = _Work(
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


def _needed(view: View, at: Int64) -> _Range:
    """Return the event times that label rows of these times may need.

    A RowView that never expires needs each key's last row before the first of them, however old: no lower bound.
    A redelivered event is taken to have the event_time of its first delivery.
    """
    low = -(2**62) if view.horizon is None else int(at.min()) - view.horizon
    return low, int(at.max()) + 1


def _columns(view: View) -> list[str]:
    if isinstance(view, WindowView):
        return list(dict.fromkeys([*needed(view), EVENT_TIME, KNOWN_TIME]))
    return list(dict.fromkeys([view.entity.key, view.source.id, *view.columns, EVENT_TIME, KNOWN_TIME]))


def _key(table: pa.Table, name: str, dtype: str) -> pa.Array:
    """Return a key column in its declared type."""
    if name not in table.column_names:
        raise InvalidValue(name, f"the table has no such key column{names_near(name, table.column_names)}")
    return cast(pa.chunked_array(table[name]), dtype, name).combine_chunks()


def _plain(keys: pa.Array) -> npt.NDArray[np.generic]:
    """Return keys as the window kernel takes them: int64, or object where they are strings or some are null."""
    if pa.types.is_string(keys.type) or keys.null_count:
        return np.array(keys.to_pylist(), dtype=object)
    return np.asarray(keys.to_numpy(), np.int64)


def _request(spine: pa.Table, name: str, dtype: str) -> npt.NDArray[np.generic]:
    values = numbers(spine, name, dtype)
    return values.astype(np.float32) if dtype == "float32" else values


def _transformed(service: FeatureService, table: pa.Table) -> pa.Table:
    """Return the table with the outputs of the service's transformations."""
    if not service.transformations:
        return table
    names = {name for step in service.transformations for name in step.inputs} & set(table.column_names)
    columns: Columns = {name: _numeric(table[name]) for name in names}
    made = transform(service, columns, times(table, EVENT_TIME))
    for step in service.transformations:
        for name in step.outputs:
            table = table.append_column(name, pa.array(made[name]))
    return table


def _numeric(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """Return a column as transformations take it: what is missing is NaN, and None among strings."""
    if pa.types.is_boolean(column.type) and column.null_count:
        column = column.cast(pa.float32())
    return np.asarray(column.to_numpy())


def _by_value(service: FeatureService) -> bytes:
    """Pickle a service with its functions' source modules, which workers need not be able to import."""
    from ray import cloudpickle

    modules = {step.function.__module__ for step in service.transformations}
    own = {name for name in modules if name == "__main__" or name.startswith("headway.")}
    registered = [sys.modules[name] for name in sorted(modules - own)]
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
