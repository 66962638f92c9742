"""Label rows against a Parquet source in tasks, without moving the source.

Tasks read keys and times of their row groups, hold them against the label rows and send back what may win; once the
winners are known, tasks read the features of those. Nothing is partitioned, sorted or spilled. A small source goes
through the same functions in this process.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID

from headway.core.errors import InvalidValue
from headway.core.ray_session import connect_anywhere
from headway.core.types import Int64
from headway.features.feast.parquet_source import FARTHEST, Deciding, Source, Split, comparable, moments
from headway.features.join.as_of import NONE, AsOf, Candidates, Labels, as_of, group
from headway.features.join.point_in_time import KeyIndex, in_place

_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Join:
    """The label rows against one view."""

    source: Source
    deciding: Deciding
    label_keys: tuple[str, ...]
    features: tuple[str, ...]
    """Names in the files."""
    outputs: tuple[str, ...]
    ttl: int | None
    """In the unit of `deciding`."""

    @classmethod
    def of(cls, config: Any, view: Any, names: Sequence[str], labels: pa.Table, time: str, full: bool) -> Join:
        """Find every column that is needed; InvalidValue names the one that is not there."""
        batch = view.batch_source
        source = Source.open(config, batch, view.name)
        mapping = batch.field_mapping
        pairs = [
            (view.projection.join_key_map.get(name, name), source.column(name, mapping)) for name in join_keys(view)
        ]
        for label_key, _ in pairs:
            if label_key not in labels.column_names:
                raise InvalidValue(label_key, f"a join key of {view.name} that entity_df lacks")
        created = batch.created_timestamp_column
        deciding = Deciding.of(
            source,
            [stored for _, stored in pairs],
            source.column(batch.timestamp_field, mapping),
            source.column(created, mapping) if created else None,
            times=labels.schema.field(time).type,
        )
        microseconds = 0 if view.ttl is None else round(view.ttl.total_seconds() * 1_000_000)
        prefix = view.projection.name_alias or view.name
        return cls(
            source=source,
            deciding=deciding,
            label_keys=tuple(label_key for label_key, _ in pairs),
            features=tuple(source.column(name, mapping) for name in names),
            outputs=tuple(f"{prefix}__{name}" if full else name for name in names),
            ttl=microseconds * (1_000 if deciding.unit == "ns" else 1),
        )

    def run(self, settings: Any, labels: pa.Table, time: str, *, cutoff: bool) -> pa.Table:
        """Return the features of the label rows, in their order."""
        n = labels.num_rows
        at = moments(labels[time], self.deciding.unit, time)
        keys = [
            _cast(labels[name], kind, name) for name, kind in zip(self.label_keys, self.deciding.types, strict=True)
        ]
        index = KeyIndex(keys)
        code = index.labels(n)
        size = settings.labels_per_pass
        passes = [group(code[i : i + size], at[i : i + size], len(index)) for i in range(0, n, size)]
        splits, volume = self.source.splits([*self.deciding.columns, *self.features], settings.split_mb * _MIB)
        held = _shared((index, *passes), settings, volume)
        cutoff = cutoff and self.deciding.created is not None
        walks = [AsOf(labels, cutoff=cutoff) for labels in passes]
        work = [
            (split, self.deciding, first, held[0], held[1:], cutoff)
            for split, first in zip(splits, offsets_of(splits), strict=False)
        ]
        for found in run_all(_candidates, work, settings, volume):
            for walk, candidates in zip(walks, found, strict=True):
                walk.merge(candidates)
        rows = [walk.found(self.ttl).row for walk in walks]
        row = np.concatenate(rows) if rows else np.empty(0, np.int64)
        return fetch(self.features, splits, row, settings, volume)


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A read between two times."""

    deciding: Deciding
    columns: tuple[str, ...]
    bounds: tuple[int, int]
    splits: list[Split]
    volume: int
    settings: Any

    @classmethod
    def of(
        cls, config: Any, data_source: Any, keys: list[str], features: list[str], event: str,
        created: str | None, start: datetime | None, end: datetime | None,
    ) -> Pull:  # fmt: skip
        """Plan the read of some columns (without features: all) of the rows between two times, both included."""
        source = Source.open(config, data_source, data_source.name or "source")
        names = dict.fromkeys([*keys, *(features or source.schema.names), event, *([created] if created else [])])
        columns = tuple(source.column(name, {}) for name in names if name != DUMMY_ENTITY_ID)
        deciding = Deciding.of(source, [key for key in keys if key != DUMMY_ENTITY_ID], event, created or None)
        factor = 1_000 if deciding.unit == "ns" else 1
        low = -FARTHEST if start is None else _microseconds(start) * factor
        high = FARTHEST if end is None else _microseconds(end) * factor
        splits, volume = source.splits(columns, config.offline_store.split_mb * _MIB)
        return cls(
            deciding=deciding,
            columns=columns,
            bounds=(low, high),
            splits=splits,
            volume=volume,
            settings=config.offline_store,
        )


@dataclass(frozen=True, kw_only=True)
class Newest:
    """The newest row of each key of a split."""

    rows: Int64
    keys: pa.Table
    event: Int64
    created: Int64


class _Shared:
    """Something that all tasks read: by reference in the object store, or here."""

    def __init__(self, value: Any, *, remote: bool) -> None:
        self._value = value
        self._remote = remote

    def get(self) -> Any:
        if not self._remote:
            return self._value
        import ray

        return ray.get(self._value)


def _candidates(
    split: Split, deciding: Deciding, first: int, index: _Shared, passes: Sequence[_Shared], cutoff: bool
) -> list[Candidates]:
    """Hold the rows of a split against all label rows, some at a time."""
    table = split.read(deciding.columns)
    known: KeyIndex = index.get()
    code = known.number(deciding.key_columns(table), table.num_rows)
    event, created = deciding.times(table)
    code[event == NONE] = -1
    found = []
    for one in passes:
        labels: Labels = one.get()
        walk = AsOf(labels, cutoff=cutoff)
        walk.add(code, event, created, first=first)
        found.append(walk.candidates())
    return found


def latest_of_split(pull: Pull, split: Split) -> Newest:
    """Return the newest row of each key of a split."""
    deciding = pull.deciding
    table = split.read(deciding.columns)
    event, created = deciding.times(table)
    inside = np.flatnonzero((event >= pull.bounds[0]) & (event <= pull.bounds[1]) & (event != NONE))
    columns = deciding.key_columns(table)
    keys = pa.table(dict(zip(deciding.keys, columns, strict=True)) or {"": np.zeros(table.num_rows, np.int8)})
    created = event if created is None else created
    newest = inside[latest(KeyIndex.of(keys.take(pa.array(inside))), event[inside], created[inside])]
    return Newest(rows=newest, keys=keys.take(pa.array(newest)), event=event[newest], created=created[newest])


def latest(index: KeyIndex, event: Int64, created: Int64) -> Int64:
    """Return the positions of the newest row of each key."""
    keys = np.arange(len(index), dtype=np.int64)
    row = as_of(keys, np.full(len(index), FARTHEST), index.labels(len(event)), event, created, keys=len(index)).row
    return row[row >= 0]


def rows_of_split(pull: Pull, split: Split) -> pa.Table:
    """Return the rows of a split, in file order."""
    table = split.read(list(dict.fromkeys([*pull.columns, pull.deciding.event])))
    event = moments(table[pull.deciding.event], pull.deciding.unit, pull.deciding.event)
    inside = (event >= pull.bounds[0]) & (event <= pull.bounds[1]) & (event != NONE)
    table = table.select(pull.columns)
    return table if inside.all() else table.filter(pa.array(inside))


def fetch(columns: Sequence[str], splits: list[Split], row: Int64, settings: Any, volume: int) -> pa.Table:
    """Return the columns of numbered rows, null for −1."""
    offsets = np.array(offsets_of(splits))
    owner = (np.searchsorted(offsets, row, side="right") - 1).astype(np.int32 if len(splits) > 2**15 else np.int16)
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    parts = []
    if len(row):
        groups = zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)
        parts = [(number, places) for number, places in groups if number >= 0]
    work = [(splits[number], tuple(columns), row[places] - offsets[number]) for number, places in parts]
    tables = list(run_all(_taken, work, settings, volume))
    schema = pa.schema([splits[0].schema.field(name) for name in columns])
    return in_place(schema, tables, [places for _, places in parts], len(row))


def _taken(split: Split, columns: tuple[str, ...], rows: Int64) -> pa.Table:
    return split.read(columns).combine_chunks().take(pa.array(rows))


def run_all(task: Callable[..., Any], work: Sequence[tuple[Any, ...]], settings: Any, volume: int) -> Iterator[Any]:
    """Yield the results in order: of this process for small sources, of Ray tasks otherwise."""
    if volume <= settings.parallel_above_mb * _MIB:
        for arguments in work:
            yield task(*arguments)
        return
    ray = _ray(settings)
    remote = ray.remote(task).options(num_cpus=1, max_retries=3)
    references = [remote.remote(*arguments) for arguments in work]
    for position, reference in enumerate(references):
        yield ray.get(reference)
        references[position] = None  # the object store may forget it


def _shared(values: Sequence[Any], settings: Any, volume: int) -> list[_Shared]:
    if volume <= settings.parallel_above_mb * _MIB:
        return [_Shared(value, remote=False) for value in values]
    ray = _ray(settings)
    return [_Shared(ray.put(value), remote=True) for value in values]


def _ray(settings: Any) -> Any:
    """Return Ray, connected."""
    import ray

    connect_anywhere(object_store_bytes=settings.object_store_mb * _MIB)
    return ray


def offsets_of(splits: Sequence[Split]) -> list[int]:
    """Return the number of the first row of each split, and of all rows."""
    return [0, *itertools.accumulate(split.rows for split in splits)]


def join_keys(view: Any) -> list[str]:
    """Return a view's join keys; a view without entities has none."""
    return [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]


def _cast(column: pa.ChunkedArray, kind: pa.DataType, field: str) -> pa.ChunkedArray:
    """Return label keys in the type of the source's; whole numbers in floats are numbers, and text never is."""

    def textual(other: pa.DataType) -> bool:
        return bool(pa.types.is_string(comparable(other)))

    empty = column.null_count == len(column)
    try:
        if textual(column.type) != textual(kind) and not empty:
            raise pa.ArrowInvalid
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InvalidValue(field, f"{column.type} values in entity_df where the source has {kind}") from None


def _microseconds(moment: datetime) -> int:
    """Return UTC microseconds; a naive time is UTC."""
    stamp = pd.Timestamp(moment)
    stamp = stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp
    return int((stamp - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(1, "us"))
