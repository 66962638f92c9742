"""Where facts come from: streams of events, kept in the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headway.core.errors import DefinitionError, names_near
from headway.core.times import HOUR
from headway.features.entities import Entity
from headway.features.quality.expectations import Expectation
from headway.features.sensitivity import require_tags

DTYPES = ("int64", "float32", "float64", "string", "bool", "timestamp")
_LABELS = ("int64", "float32", "float64", "bool")


@dataclass(frozen=True, kw_only=True)
class OutcomesOf:
    """Outcomes of a use case as events: the row of the decision, its label, and the known_time of the outcome."""

    use_case: str
    label: str
    """Column of the source that gets the label, 0 or 1."""


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
    retracts: str | None = None
    """A bool column: a row where it is true takes the event of the same id and event_time back, from its known_time on;
    None: events are never taken back."""
    max_ahead: int = HOUR
    """Microseconds that an event may lie ahead of the clock, and of its own known_time; with more, its batch is
    refused. Raise it for facts that are announced before they hold."""
    expectations: tuple[Expectation, ...] = ()
    """What its batches promise; one that breaks its promise is quarantined whole (`features.quality`)."""
    optional: tuple[str, ...] = ()
    """Columns that an event may lack, which are null then: such as were added while producers do not send them yet.
    Columns may be added anywhere, and a float32 may become a float64; rows from before are null there. Nothing else
    about a column can change."""
    outcomes: OutcomesOf | None = None
    """Outcomes posted for a use case's decisions become events of this source; columns that neither decision nor
    outcome has are null. The id is the service's `event_id`, or made from the decision's (`features.outcomes`)."""
    owner: str = ""
    description: str = ""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column → sensitivity tags, such as `pii`; what is derived from the column has them too."""

    def __post_init__(self) -> None:
        """Refuse columns of id, bucket, retraction, tags or expectations that the source does not have."""
        require_tags(self.tags, self.columns, field=f"{self.name}.tags")
        for name in ("id", "bucket_by"):
            self.require_column(getattr(self, name), field=f"{self.name}.{name}")
        for name in self.optional:
            self.require_column(name, field=f"{self.name}.optional")
        if self.id in self.optional:
            raise DefinitionError(
                "an event without an id cannot be told from another",
                field=f"{self.name}.optional",
                expected=f"columns other than {self.id!r}",
            )
        if self.retracts is not None and self.columns.get(self.retracts) != "bool":
            raise DefinitionError(
                f"the source has no bool column {self.retracts!r}",
                field=f"{self.name}.retracts",
                expected="the name of one",
            )
        for expectation in self.expectations:
            expectation.require_columns(self.columns, field=f"{self.name}.expectations")
        if self.outcomes is not None:
            label = self.outcomes.label
            self.require_column(label, field=f"{self.name}.outcomes.label")
            if self.columns[label] not in _LABELS or label == self.id:
                raise DefinitionError(
                    f"{label!r} cannot hold 0 or 1: it is {'the id' if label == self.id else self.columns[label]}",
                    field=f"{self.name}.outcomes.label",
                    expected=f"a column of {', '.join(_LABELS)}",
                )

    @property
    def table(self) -> str:
        """Name of the lake table."""
        return f"events.{self.name}"

    def require_column(self, column: str, *, field: str) -> None:
        """Raise DefinitionError, with the nearest names, where the source lacks a column."""
        if column not in self.columns:
            near = names_near(column, self.columns)
            raise DefinitionError(f"the source {self.name!r} has no column {column!r}{near}", field=field)

    def require_key(self, entity: Entity, *, field: str) -> None:
        """Raise DefinitionError where the source lacks a column of an entity's key, or has it in another type."""
        for column, dtype in zip(entity.keys, entity.dtypes, strict=True):
            if self.columns.get(column) != dtype:
                near = "" if column in self.columns else names_near(column, self.columns)
                raise DefinitionError(
                    f"the source {self.name!r} has no {dtype} column {column!r}, which is a key of {entity.name}{near}",
                    field=field,
                    expected="an entity whose key columns the source has, in their types",
                )
