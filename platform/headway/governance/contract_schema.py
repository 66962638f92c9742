"""The shape of a contract (INTERFACES §2): types, ranges and words; what spans fields is in `contract_rules`."""

from __future__ import annotations

from functools import total_ordering
from typing import Annotated, Final, Literal

import msgspec

from headway.core.times import DAY, format_duration, parse_duration

Name = Annotated[
    str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,62}$", description="lower-case letters, digits, underscore")
]
Role = Annotated[
    str, msgspec.Meta(pattern="^[a-z][a-z0-9_-]{0,62}$", description="lower-case letters, digits, - and _")
]
Rung = Annotated[
    str,
    msgspec.Meta(
        pattern="^(previous|rules|variant:[a-z][a-z0-9_]{0,62})$", description="previous, rules or variant:<model name>"
    ),
]
Positive = Annotated[float, msgspec.Meta(gt=0)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0, le=2**31)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
OpenFraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Dtype = Literal["int64", "float32", "float64", "string", "bool", "timestamp"]
Metric = Literal["roc_auc", "average_precision", "card_precision_at_100"]
"""Metrics a contract can give a floor: larger is better. Losses are gated in the training definition."""


@total_ordering
class Duration:
    """A span of time, written as `5s`, `24h`, `30d`; a class of its own so that msgspec asks us how to read it."""

    __slots__ = ("microseconds",)

    def __init__(self, microseconds: int) -> None:
        self.microseconds: Final = microseconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.microseconds == other.microseconds

    def __lt__(self, other: Duration) -> bool:
        return self.microseconds < other.microseconds

    def __hash__(self) -> int:
        return hash(self.microseconds)

    def __repr__(self) -> str:
        return f"Duration({self.microseconds})"

    def __str__(self) -> str:
        """The shortest exact text: equal spans have one canonical form."""
        return format_duration(self.microseconds)

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Return the span of a text; InvalidValue otherwise."""
        return cls(parse_duration(text))


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a score becomes a word."""

    threshold: float
    """A score at or above it is the second name."""
    names: tuple[str, str]
    """Below, at or above."""


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a decision holds."""

    score: Literal["float32"]
    label: Label


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is decided from what."""

    feature_service: Name
    entity: tuple[Name, ...]
    """Key columns."""
    request: dict[Name, Dtype]
    """Columns that come with the request."""
    output: Output
    positive_rate: OpenFraction
    """Expected share of positives: sizes alarms and canaries."""


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From request received to response sent."""

    p95_ms: Positive
    p99_ms: Positive


class Throughput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be sustained, and what happens beyond."""

    ceiling_rps: Positive
    beyond: Literal["shed", "fallback"]


class Availability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Share of answered requests; 429 and shedding above the ceiling don't count."""

    target: OpenFraction
    window: Duration


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A floor on a live metric."""

    metric: Metric
    floor: Fraction
    window: Duration
    on_breach: tuple[Literal["alert", "fallback", "retrain"], ...]


class Freshness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a view as a whole may be behind."""

    view: Name
    max_lag: Duration
    on_stale: Literal["reject", "default", "null", "recompute"]


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The budget of the drift alarms."""

    false_alarms_per_month: Positive
    smallest_effect: OpenFraction
    """KS distance, or total variation for categories."""


class Margins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much worse than the champion a challenger may be."""

    error_rate: Fraction
    latency_p99_ms: Positive
    agreement: Fraction


class Canary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a challenger takes over."""

    steps: tuple[Annotated[int, msgspec.Meta(ge=1, le=100)], ...]
    """Percent of traffic, growing."""
    shadow: Fraction
    """Share of requests that the challenger answers unseen."""
    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.5)]
    """Chance of a wrong verdict."""
    margins: Margins
    max_hours: Positive
    on_timeout: Literal["hold", "rollback", "promote"]


class Retrain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often the loop may retrain."""

    cooldown: Duration
    min_new_labels: PositiveInt
    max_per_week: PositiveInt


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rate limit of one client, in rows."""

    default_rps: Positive
    burst: PositiveInt


class Privacy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For what data may be used, and how long it is kept."""

    purposes: tuple[Name, ...]
    retention: Duration


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What product, risk and operations agreed for one use case."""

    api_version: Literal["headway/v1"] = msgspec.field(name="apiVersion")
    kind: Literal["Contract"]
    name: Name
    """The use case."""
    owner: Annotated[str, msgspec.Meta(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", description="an e-mail address")]
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    decision: Decision
    tier: Literal["cpu", "gpu", "edge"]
    latency: Latency
    throughput: Throughput
    availability: Availability
    accuracy: tuple[Accuracy, ...]
    freshness: tuple[Freshness, ...]
    fallback: tuple[Rung, ...]
    """Ladder below the champion."""
    decision_log: Literal["durable", "lossy"]
    drift: Drift
    canary: Canary
    retrain: Retrain
    limits: Limits
    privacy: Privacy
    signoff: tuple[Role, ...]
    """Roles that must sign."""


LONGEST = Duration(3650 * DAY)
"""No duration of a contract is longer: ten years."""
