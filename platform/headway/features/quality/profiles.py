"""How the values of a source are distributed, day by day: counted as batches are ingested, so that nothing is scanned.

Bins are the same for every source and day: zero, and four to each doubling of a number's size either way. So counts of
any days add up, and a difference between days needs no reference that was fixed before. Text is counted by hash.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headway.core.canonical import sha256
from headway.core.control import ControlStore
from headway.core.errors import Conflict
from headway.core.times import DAY, EVENT_TIME, KNOWN_TIME, SECOND
from headway.core.types import Int64, Matrix
from headway.features.arrow import whole
from headway.features.definitions import EventSource
from headway.features.profile import BinnedColumn, Counter, Profile
from headway.features.windows.events import event_ids

KEPT = 64
"""Newest days that are kept."""
DELAY = "known_time − event_time"
"""The column of arrival delays, in seconds."""
TEXTS = 64
"""Bins of a text column."""
_PER_DOUBLING = 4
_SMALLEST, _LARGEST = -10, 40
_REMEMBERED = 256
_PLACES = 1_024
_ATTEMPTS = 20
_KEY = "quality:profile:{source}:{place}"


class _Day(msgspec.Struct, frozen=True, kw_only=True):
    day: int
    layout: str
    rows: int
    counts: bytes
    batches: list[str]
    places: dict[str, int] = {}
    """Place of a stream → the end of the stretch that was counted last."""


@dataclass(frozen=True, kw_only=True)
class DayCounts:
    """The ingested rows of one UTC day of known_time."""

    day: int
    """Days since 1970."""
    rows: int
    counts: Int64
    """Flat, in the layout of `layout(source)`."""


def layout(source: EventSource) -> Profile:
    """Return the empty profile of a source: its columns but keys and times, then the delay with which it is known."""
    size = 2.0 ** (np.arange(_SMALLEST * _PER_DOUBLING, _LARGEST * _PER_DOUBLING + 1) / _PER_DOUBLING)
    numbers = np.concatenate([-size[::-1], [-1e-30, 0.0], size]).astype(np.float32).astype(float).tolist()
    edges = {"string": [float(code) for code in range(TEXTS - 1)], "bool": [0.0]}
    dtypes = {name: source.columns[name] for name in _counted(source)}
    columns = {name: edges.get(dtype, numbers) for name, dtype in dtypes.items()} | {DELAY: numbers}
    return Profile(
        rows=0,
        columns=[BinnedColumn(name=name, edges=at, counts=[0] * (len(at) + 2)) for name, at in columns.items()],
    )


def count(source: EventSource, events: pa.Table) -> Int64:
    """Return the flat counts of rows as `conform` returns them."""
    counter = Counter(layout(source))
    _add(counter, _matrix(source, events))
    return counter.drain()


class Profiles:
    """The profiles of an installation's sources, in its control store."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control

    def add(self, source: EventSource, events: pa.Table, batch: str) -> None:
        """Count an ingested batch; one of the last batches of a day, repeated, counts once."""
        name = sha256(batch.encode())[:16]

        def again(day: _Day) -> bool:
            return name in day.batches

        self._add(source, events, again, lambda day: {"batches": [*day.batches, name][-_REMEMBERED:]})

    def add_stretch(self, source: EventSource, events: pa.Table, place: str, end: int) -> None:
        """Count a stretch of a stream that ends before an offset of a place; stretches come in order, or again."""

        def again(day: _Day) -> bool:
            return day.places.get(place, -1) >= end

        def remembered(day: _Day) -> dict[str, Any]:
            places = [*((other, at) for other, at in day.places.items() if other != place), (place, end)]
            return {"places": dict(places[-_PLACES:])}

        self._add(source, events, again, remembered)

    def _add(
        self,
        source: EventSource,
        events: pa.Table,
        again: Callable[[_Day], bool],
        remembered: Callable[[_Day], dict[str, Any]],
    ) -> None:
        if not events.num_rows:
            return
        bins = layout(source)
        days = np.asarray(whole(events[KNOWN_TIME]).to_numpy(), np.int64) // DAY
        values = _matrix(source, events)
        counter, same = Counter(bins), bins.sha256()
        for day in np.unique(days)[-KEPT:].tolist():
            chosen = values[days == day]
            _add(counter, chosen)
            more = DayCounts(day=day, rows=len(chosen), counts=counter.drain())
            self._merge(source, same, more, again, remembered)

    def days(self, source: EventSource) -> list[DayCounts]:
        """Return the days there are, oldest first; those of other columns are left out."""
        same = layout(source).sha256()
        found = [self._read(source, place)[0] for place in range(KEPT)]
        there = [day for day in found if day is not None and day.layout == same]
        return sorted((_counts(day) for day in there), key=lambda day: day.day)

    def _merge(
        self,
        source: EventSource,
        layout_sha256: str,
        more: DayCounts,
        again: Callable[[_Day], bool],
        remembered: Callable[[_Day], dict[str, Any]],
    ) -> None:
        place = more.day % KEPT
        fresh = _Day(day=more.day, layout=layout_sha256, rows=0, counts=b"", batches=[])
        for _ in range(_ATTEMPTS):
            old, version = self._read(source, place)
            if old is None or old.layout != layout_sha256 or old.day < more.day:
                old = fresh
            if old.day > more.day or again(old):
                return
            counts = _counts(old).counts + more.counts if old.counts else more.counts
            day = msgspec.structs.replace(
                old,
                rows=old.rows + more.rows,
                counts=zlib.compress(counts.astype("<i8").tobytes()),
                **remembered(old),
            )
            try:
                self._control.put(_key(source, place), msgspec.json.encode(day), expected=version)
            except Conflict:
                continue
            return
        raise Conflict(f"the profile of {source.name} keeps changing", hint="one ingester per source")

    def _read(self, source: EventSource, place: int) -> tuple[_Day | None, int]:
        record = self._control.get(_key(source, place))
        return (None, 0) if record is None else (msgspec.json.decode(record.value, type=_Day), record.version)


def _counted(source: EventSource) -> list[str]:
    keys = (source.id, source.bucket_by)
    return [name for name, dtype in source.columns.items() if name not in keys and dtype != "timestamp"]


def _matrix(source: EventSource, events: pa.Table) -> Matrix:
    """Return what is counted, float32 [n rows, k columns]; missing values are NaN."""
    columns = [_values(whole(events[name]), source.columns[name]) for name in _counted(source)]
    known, happened = (whole(events[name]).to_numpy() for name in (KNOWN_TIME, EVENT_TIME))
    delay = (known.astype(np.float64) - happened) / SECOND
    return np.stack([*columns, delay.astype(np.float32)], axis=1)


def _values(column: pa.Array, dtype: str) -> Matrix:
    if dtype == "string":
        texts = column.dictionary_encode()
        codes = (event_ids(np.array(texts.dictionary.to_pylist(), dtype=object)) % TEXTS).astype(np.float32)
        column = pa.array(codes, pa.float32()).take(texts.indices)
    with np.errstate(over="ignore"):
        return np.asarray(column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False), np.float32)


def _add(counter: Counter, values: Matrix) -> None:
    counter.add(values[:, :-1], values[:, -1])


def _counts(day: _Day) -> DayCounts:
    flat = np.frombuffer(zlib.decompress(day.counts), "<i8").astype(np.int64)
    return DayCounts(day=day.day, rows=day.rows, counts=flat)


def _key(source: EventSource, place: int) -> str:
    return _KEY.format(source=source.name, place=place)
