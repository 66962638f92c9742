"""What a data scientist writes about features: entities, sources, views, transformations, services.

These are plain frozen values: no connection, no state. The engine compiles them for batch and request alike, and their
canonical form is hashed into every signed model version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from headway.core.canonical import canonical, sha256
from headway.core.errors import DefinitionError, names_near
from headway.core.times import DAY, EVENT_TIME, HOUR, MINUTE, SECOND, format_duration, parse_duration
from headway.features.aggregates import HASHED, Aggregate
from headway.features.aliases import Aliasable, AliasedView, require_joins
from headway.features.entities import Entity, require_event_id
from headway.features.quality.expectations import Expectation
from headway.features.request_values import describe_request_values, require_request_values
from headway.features.sensitivity import require_tags
from headway.features.sources import DTYPES, EventSource, OutcomesOf
from headway.features.transformations import Transformation

__all__ = [
    "DTYPES",
    "AliasedView",
    "Entity",
    "EventSource",
    "FeatureService",
    "OutcomesOf",
    "Overflow",
    "RowView",
    "View",
    "WindowView",
]

_HOPS = (SECOND, 5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, DAY)


class Overflow(StrEnum):
    """What happens to an event beyond `max_events` of its key."""

    DROP_OLDEST = "drop_oldest"
    """The oldest is forgotten; reads that would have needed it say `truncated`."""
    REJECT = "reject"
    """The write fails and names the key."""


@dataclass(frozen=True, kw_only=True)
class WindowView(Aliasable):
    """Aggregates of one source per entity, evaluated at the decision time.

    By default windows are made of hop tiles: sums of the events between two multiples of `hop`, of which a window takes
    whole ones. It ends at the decision time exactly and reaches up to one `hop` further back than declared (of a window
    with an offset, the end too lies up to one hop further back): that is the error, and there is no other. With
    `max_events` windows are `exact` instead, and a key's events are kept one by one, so many at most.
    """

    name: str
    entity: Entity
    source: EventSource
    aggregates: tuple[Aggregate, ...]
    hop: str | None = None
    """Step of the windows' beginnings, such as `5m`; None: chosen, a twentieth of the shortest window at most."""
    max_events: int | None = None
    """Makes windows exact: the declared cap on retained events per key; `overflow` says what happens beyond."""
    overflow: Overflow = Overflow.DROP_OLDEST
    retention: int | None = None
    """Microseconds of events kept per key; None: derived, the longest window plus its offset; a view with an aggregate
    without window keeps everything, or up to `max_events`."""
    owner: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse columns that the source lacks, two kinds of window at once, and a hop that is longer than a window."""
        self.source.require_key(self.entity, field=f"{self.name}.entity")
        for aggregate in self.aggregates:
            if aggregate.column is not None:
                self.source.require_column(aggregate.column, field=f"{self.name}.aggregates")
        if self.max_events is None:
            shortest = min((a.window for a in self.aggregates if a.window is not None), default=DAY)
            if not 0 < self.step <= shortest:
                raise DefinitionError(
                    f"{self.hop!r} is longer than the shortest window",
                    field=f"{self.name}.hop",
                    expected=f"at most {format_duration(shortest)}",
                )
        elif self.hop is not None:
            raise DefinitionError(
                "the view has both hop and max_events",
                field=f"{self.name}.hop",
                expected="hop: windows of tiles, or max_events: exact windows",
            )
        elif self.max_events < 1:
            raise DefinitionError(f"{self.max_events}", field=f"{self.name}.max_events", expected="1 or more")

    @property
    def exact(self) -> bool:
        """Whether windows are evaluated event by event."""
        return self.max_events is not None

    @cached_property
    def step(self) -> int:
        """The hop in microseconds, by which windows may reach too far back; 0: exact."""
        if self.max_events is not None:
            return 0
        if self.hop is not None:
            return parse_duration(self.hop, field=f"{self.name}.hop")
        shortest = min((a.window for a in self.aggregates if a.window is not None), default=20 * DAY)
        return max([1, *(hop for hop in _HOPS if hop <= shortest // 20)])

    @cached_property
    def columns(self) -> tuple[tuple[str, int], ...]:
        """The (column, scale) pairs kept as int64 per event, sorted, numbers before identities."""
        found = {(a.column, a.scale) for a in self.aggregates if a.column is not None}
        return tuple(sorted(found, key=lambda pair: (pair[1] == HASHED, *pair)))

    @property
    def features(self) -> tuple[str, ...]:
        """Full names: `<view>__<aggregate>`."""
        return tuple(f"{self.name}__{aggregate.name}" for aggregate in self.aggregates)

    @property
    def reach(self) -> int | None:
        """Microseconds of history that count; None: unbounded."""
        if self.retention is not None:
            return self.retention
        if any(a.window is None for a in self.aggregates):
            return None
        return max((a.window or 0) + a.offset for a in self.aggregates)

    @property
    def horizon(self) -> int | None:
        """Microseconds of history that a read may need; None: unbounded."""
        return None if self.reach is None else self.reach + self.step

    def describe(self) -> dict[str, Any]:
        """Return the definition as builtin types."""
        return {
            "name": self.name,
            **self.entity.describe(),
            "source": self.source.name,
            **({} if self.source.retracts is None else {"retracts": self.source.retracts}),
            **({"max_events": self.max_events, "overflow": self.overflow.value} if self.exact else {"hop": self.step}),
            "retention": self.reach,
            "aggregates": [aggregate.describe() for aggregate in self.aggregates],
        }


@dataclass(frozen=True, kw_only=True)
class RowView(Aliasable):
    """The newest row of a source per entity, as of the decision time: facts that are replaced, not summed up.

    Of the rows with event_time ≤ t (and known_time ≤ t where the cutoff is on) the one with the greatest event_time
    counts, of several the greatest known_time, then the greatest id. A null in it stays null; a row older than `ttl`
    (t − event_time > ttl) is expired and gives nulls.
    """

    name: str
    entity: Entity
    source: EventSource
    columns: tuple[str, ...]
    """Columns of the source that become features."""
    ttl: int | None = None
    """Microseconds; None: a row never expires. The bound is inclusive."""
    owner: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse columns that the source lacks, and a lifetime that is none."""
        self.source.require_key(self.entity, field=f"{self.name}.entity")
        for column in self.columns:
            self.source.require_column(column, field=f"{self.name}.columns")
        if self.source.retracts is not None:
            raise DefinitionError(
                "its source takes events back, and a row view would keep them",
                field=f"{self.name}.source",
                expected="a source without retracts, or a window view with last()",
            )
        if self.ttl is not None and self.ttl <= 0:
            raise DefinitionError(f"{self.ttl} µs", field=f"{self.name}.ttl", expected="more than 0, or None: for ever")

    @property
    def features(self) -> tuple[str, ...]:
        """Full names: `<view>__<column>`."""
        return tuple(f"{self.name}__{column}" for column in self.columns)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The columns' dtypes."""
        return tuple(self.source.columns[column] for column in self.columns)

    @property
    def horizon(self) -> int | None:
        """Microseconds of history that a read may need; None: unbounded."""
        return self.ttl

    def describe(self) -> dict[str, Any]:
        """Return the definition as builtin types."""
        return {
            "name": self.name,
            "kind": "row",
            **self.entity.describe(),
            "source": self.source.name,
            "columns": dict(zip(self.columns, self.dtypes, strict=True)),
            "ttl": self.ttl,
        }


View = WindowView | RowView


@dataclass(frozen=True, kw_only=True)
class FeatureService:
    """The features of one model, in order: the read plan, the training columns and the model input are this list."""

    name: str
    views: tuple[View | AliasedView, ...]
    """What is joined; a view may come again under aliases."""
    request: Mapping[str, str]
    """Columns that come with the request (without event_time), and their dtype."""
    transformations: tuple[Transformation, ...] = ()
    features: tuple[str, ...] = ()
    """Model input in order; empty: request columns, view features, transformation outputs."""
    event_id: str | None = None
    """The client's own id of what is decided on, an optional field of a decision's row: logged, never model input, and
    not part of what is hashed. Outcomes become events under it (`EventSource.outcomes`)."""
    event_id_dtype: str = "int64"
    expectations: tuple[Expectation, ...] = ()
    """Of request columns: `between`, `one_of`. What breaks one is refused, or marked where its severity is WARN."""
    description: str = ""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Request column → sensitivity tags; those of views come from their sources."""

    def __post_init__(self) -> None:
        """Refuse names that nothing produces, names produced twice, and one name for two things."""
        produced = [*self.request, *(name for view in self.views for name in view.features)]
        for step in self.transformations:
            for name in step.inputs:
                if name != EVENT_TIME and name not in produced:
                    near = names_near(name, [EVENT_TIME, *produced])
                    raise DefinitionError(
                        f"transformation {step.name!r} needs {name!r}, which nothing before it produces{near}",
                        field=f"{self.name}.transformations",
                    )
            produced.extend(step.outputs)
        if len(set(produced)) != len(produced):
            twice = sorted({name for name in produced if produced.count(name) > 1})
            raise DefinitionError(f"produced twice: {', '.join(twice)}", field=f"{self.name}.views")
        require_tags(self.tags, self.request, field=f"{self.name}.tags")
        require_request_values(self.expectations, self.request, field=f"{self.name}.expectations")
        for name in self.features:
            if name not in produced:
                raise DefinitionError(
                    f"unknown feature {name!r}{names_near(name, produced)}", field=f"{self.name}.features"
                )
        if not self.features:
            object.__setattr__(self, "features", tuple(produced))
        require_joins(self.views, frozenset([EVENT_TIME, *produced]), field=f"{self.name}.views")
        if self.event_id is not None:
            require_event_id(self.event_id, self.event_id_dtype, (*self.keys, *produced), field=f"{self.name}.event_id")

    @property
    def stored(self) -> tuple[View, ...]:
        """The views whose state the service reads, each once: those joined, and those that aliases stand for."""
        return tuple({view.name: view for view in (view.stored for view in self.views)}.values())

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Entities in order of first use."""
        return tuple(dict.fromkeys(view.entity for view in self.stored))

    @property
    def key_columns(self) -> dict[str, str]:
        """Key column → dtype, in order of first use."""
        return {
            column: dtype
            for view in self.views
            for column, dtype in zip(view.keys, view.stored.entity.dtypes, strict=True)
        }

    @property
    def keys(self) -> tuple[str, ...]:
        """Key columns in order of first use."""
        return tuple(self.key_columns)

    def describe(self) -> dict[str, Any]:
        """Return the definition as builtin types: what is hashed and what the registry keeps."""
        aliased = any(isinstance(view, AliasedView) for view in self.views)
        joins = [{"name": view.name, "view": view.stored.name, "key": list(view.keys)} for view in self.views]
        return {
            "name": self.name,
            "request": dict(self.request),
            "features": list(self.features),
            "views": [view.describe() for view in self.stored],
            **({"joins": joins} if aliased else {}),
            **({"expectations": describe_request_values(self.expectations)} if self.expectations else {}),
            "transformations": [
                {"name": step.name, "inputs": list(step.inputs), "outputs": dict(step.outputs), "source": step.source}
                for step in self.transformations
            ],
        }

    def sha256(self) -> str:
        """Return the hash of the definition."""
        return sha256(canonical(self.describe()))
