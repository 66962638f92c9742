"""What a data scientist writes about features: entities, sources, window views, transformations, services.

These are plain frozen values: no connection, no state. The engine compiles them for batch and request alike, and their
canonical form is hashed into every signed model version.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from headway.core.canonical import canonical, sha256
from headway.core.errors import DefinitionError
from headway.core.times import EVENT_TIME, format_duration, parse_duration
from headway.core.types import Columns

DTYPES = ("int64", "float32", "float64", "string", "bool", "timestamp")
TransformFunction = Callable[[Columns], Columns]


class Statistic(StrEnum):
    """What an aggregate computes over the events of a window."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    LAST = "last"
    SINCE_FIRST = "since_first"
    """Days from the first event in the window to the decision."""
    SINCE_LAST = "since_last"
    """Days from the last event in the window to the decision."""


class Overflow(StrEnum):
    """What happens to an event beyond `max_events` of its key."""

    DROP_OLDEST = "drop_oldest"
    """The oldest is forgotten; reads that would have needed it say `truncated`."""
    REJECT = "reject"
    """The write fails and names the key."""


@dataclass(frozen=True, kw_only=True)
class Entity:
    """Something decisions are about."""

    name: str
    key: str
    """Column that identifies it."""
    dtype: str = "int64"
    """int64 | string."""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class EventSource:
    """A stream of facts kept in the lake as table `events.<name>`; event_time and known_time are implied."""

    name: str
    columns: Mapping[str, str]
    """Column → dtype, without the time columns."""
    id: str
    """Column that identifies an event; a repeated id is the same event."""
    bucket_by: str
    """Key column of the table's Iceberg bucket partition."""
    buckets: int = 8
    purposes: tuple[str, ...] = ()
    """Purposes for which it may be read; empty: none."""
    owner: str = ""
    description: str = ""

    @property
    def table(self) -> str:
        """Name of the lake table."""
        return f"events.{self.name}"


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One statistic of one column over (t − offset − window, t − offset]; see `count`, `total`, `mean`, `last`."""

    statistic: Statistic
    column: str | None = None
    window: int | None = None
    """Microseconds; None: everything that the view retains."""
    offset: int = 0
    """Microseconds by which the window ends before t, for facts that are late by design."""
    scale: int = 1
    """Values are summed as int64(round(value × scale)), so that every path agrees to the bit."""

    @property
    def name(self) -> str:
        """`amount_mean_7d`, `count_30d`, `since_last`."""
        parts = [self.column or "", self.statistic.value, "" if self.window is None else format_duration(self.window)]
        return "_".join(part for part in parts if part)


def _windows(
    statistic: Statistic, column: str | None, windows: tuple[str, ...], offset: str, scale: int
) -> tuple[Aggregate, ...]:
    delay = parse_duration(offset, field="offset")
    spans = tuple(parse_duration(text, field="window") for text in windows) or (None,)
    return tuple(
        Aggregate(statistic=statistic, column=column, window=span, offset=delay, scale=scale) for span in spans
    )


def count(*windows: str, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Count events, one aggregate per window; no window: all retained."""
    return _windows(Statistic.COUNT, None, windows, offset, 1)


def total(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Sum a column exactly, in units of 1/scale."""
    return _windows(Statistic.SUM, column, windows, offset, scale)


def mean(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Average a column: exact sum / count; NaN over an empty window."""
    return _windows(Statistic.MEAN, column, windows, offset, scale)


def smallest(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Minimum of a column; NaN over an empty window."""
    return _windows(Statistic.MIN, column, windows, offset, scale)


def largest(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Maximum of a column; NaN over an empty window."""
    return _windows(Statistic.MAX, column, windows, offset, scale)


def last(column: str, *windows: str, scale: int = 1, offset: str = "0s") -> tuple[Aggregate, ...]:
    """Newest value (ties: greatest known_time, then id order of arrival); NaN over an empty window."""
    return _windows(Statistic.LAST, column, windows, offset, scale)


def since_first(*windows: str) -> tuple[Aggregate, ...]:
    """Days since the first event; NaN over an empty window."""
    return _windows(Statistic.SINCE_FIRST, None, windows, "0s", 1)


def since_last(*windows: str) -> tuple[Aggregate, ...]:
    """Days since the last event; NaN over an empty window."""
    return _windows(Statistic.SINCE_LAST, None, windows, "0s", 1)


@dataclass(frozen=True, kw_only=True)
class WindowView:
    """Aggregates of one source per entity, evaluated at the decision time from the key's own events (`exact`)."""

    name: str
    entity: Entity
    source: EventSource
    aggregates: tuple[Aggregate, ...]
    max_events: int
    """Declared cap on retained events per key; `overflow` says what happens beyond."""
    overflow: Overflow = Overflow.DROP_OLDEST
    retention: int | None = None
    """Microseconds of events kept per key; None: derived, the longest window plus its offset; a view with an aggregate
    without window keeps everything up to `max_events`."""
    owner: str = ""
    description: str = ""

    @cached_property
    def columns(self) -> tuple[tuple[str, int], ...]:
        """The (column, scale) pairs kept as int64 per event, sorted."""
        return tuple(sorted({(a.column, a.scale) for a in self.aggregates if a.column is not None}))

    @property
    def features(self) -> tuple[str, ...]:
        """Full names: `<view>__<aggregate>`."""
        return tuple(f"{self.name}__{aggregate.name}" for aggregate in self.aggregates)

    @property
    def horizon(self) -> int | None:
        """Microseconds of history that a read may need; None: unbounded."""
        if self.retention is not None:
            return self.retention
        if any(a.window is None for a in self.aggregates):
            return None
        return max((a.window or 0) + a.offset for a in self.aggregates)


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """A vectorised function over columns: the same object runs over training blocks and request batches."""

    name: str
    inputs: tuple[str, ...]
    """Feature names, request columns, or `event_time` (decision time, int64 microseconds)."""
    outputs: Mapping[str, str]
    """Output column → dtype (float32)."""
    function: TransformFunction = field(compare=False)

    @property
    def source(self) -> str:
        """Source text, hashed into the kernel."""
        return inspect.getsource(self.function)


def transformation(
    *, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Callable[[TransformFunction], Transformation]:
    """Declare a transformation: `@transformation(inputs=("event_time",), outputs=("is_night",))`."""

    def declare(function: TransformFunction) -> Transformation:
        return Transformation(
            name=function.__name__, inputs=inputs, outputs=dict.fromkeys(outputs, "float32"), function=function
        )

    return declare


@dataclass(frozen=True, kw_only=True)
class FeatureService:
    """The features of one model, in order: the read plan, the training columns and the model input are this list."""

    name: str
    views: tuple[WindowView, ...]
    request: Mapping[str, str]
    """Columns that come with the request (without event_time), and their dtype."""
    transformations: tuple[Transformation, ...] = ()
    features: tuple[str, ...] = ()
    """Model input in order; empty: request columns, view features, transformation outputs."""
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse names that nothing produces and names produced twice."""
        produced = [*self.request, *(name for view in self.views for name in view.features)]
        for step in self.transformations:
            for name in step.inputs:
                if name != EVENT_TIME and name not in produced:
                    raise DefinitionError(
                        f"transformation {step.name!r} needs {name!r}, which nothing before it produces",
                        field=f"{self.name}.transformations",
                        expected=f"one of {', '.join([EVENT_TIME, *produced])}",
                    )
            produced.extend(step.outputs)
        if len(set(produced)) != len(produced):
            twice = sorted({name for name in produced if produced.count(name) > 1})
            raise DefinitionError(f"produced twice: {', '.join(twice)}", field=f"{self.name}.views")
        for name in self.features:
            if name not in produced:
                raise DefinitionError(f"unknown feature {name!r}", field=f"{self.name}.features")
        if not self.features:
            object.__setattr__(self, "features", tuple(produced))

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Entities in order of first use."""
        return tuple(dict.fromkeys(view.entity for view in self.views))

    @property
    def keys(self) -> tuple[str, ...]:
        """Key columns in order of first use."""
        return tuple(entity.key for entity in self.entities)

    def describe(self) -> dict[str, Any]:
        """Return the definition as builtin types: what is hashed and what the registry keeps."""
        return {
            "name": self.name,
            "request": dict(self.request),
            "features": list(self.features),
            "views": [
                {
                    "name": view.name,
                    "entity": view.entity.name,
                    "key": view.entity.key,
                    "source": view.source.name,
                    "max_events": view.max_events,
                    "overflow": view.overflow.value,
                    "retention": view.horizon,
                    "aggregates": [
                        {
                            "name": a.name,
                            "statistic": a.statistic.value,
                            "column": a.column,
                            "window": a.window,
                            "offset": a.offset,
                            "scale": a.scale,
                        }
                        for a in view.aggregates
                    ],
                }
                for view in self.views
            ],
            "transformations": [
                {"name": step.name, "inputs": list(step.inputs), "outputs": dict(step.outputs), "source": step.source}
                for step in self.transformations
            ],
        }

    def sha256(self) -> str:
        """Return the hash of the definition."""
        return sha256(canonical(self.describe()))
