"""Rules of a contract that no single field's type can say; each names the field and the form it expects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from headway.governance.contract_schema import LONGEST, Contract, Duration

Violation = tuple[str, str, str]
"""Field path, what is wrong, expected form."""


def violations(contract: Contract, leaves: Iterable[tuple[str, Any]]) -> Iterator[Violation]:
    """Yield what is wrong, in the order of the file; `leaves` are the contract's (path, typed value) pairs."""
    for path, value in leaves:
        if isinstance(value, float) and not math.isfinite(value):
            yield path, "is not finite", "a finite number"
        if isinstance(value, Duration) and not 0 < value.microseconds <= LONGEST.microseconds:
            yield path, f"{value} is out of range", f"more than 0 and at most {LONGEST}"
    if not all(letter.isprintable() or letter == "\n" for letter in contract.description):
        yield "description", "holds control characters", "plain text"
    yield from _decision(contract)
    yield from _lists(contract)
    if contract.latency.p99_ms < contract.latency.p95_ms:
        yield "latency.p99_ms", "is below p95_ms", f"at least {contract.latency.p95_ms:g}"
    steps = contract.canary.steps
    if not steps or any(b <= a for a, b in pairwise(steps)):
        yield "canary.steps", f"{list(steps)} does not grow", "growing percentages, such as [5, 10, 50]"
    if "rules" in contract.fallback[:-1]:
        yield "fallback", "a rung stands below rules and can never be reached", "rules last"


def _decision(contract: Contract) -> Iterator[Violation]:
    decision = contract.decision
    both = sorted(set(decision.entity) & set(decision.request))
    if both:
        yield "decision.request", f"{', '.join(both)} is an entity key already", "columns that are no entity keys"
    for column in ("event_time",):
        if decision.request.get(column, "timestamp") != "timestamp":
            yield f"decision.request.{column}", f"is {decision.request[column]}", "timestamp"
        if column in decision.entity:
            yield "decision.entity", f"{column} is a time", "key columns"
    names = decision.output.label.names
    if names[0] == names[1] or not all(name and name.isprintable() for name in names):
        yield "decision.output.label.names", f"{list(names)}", "two different words: [allow, block]"


def _lists(contract: Contract) -> Iterator[Violation]:
    lists: list[tuple[str, Sequence[str], bool]] = [
        ("decision.entity", contract.decision.entity, True),
        ("accuracy", [clause.metric for clause in contract.accuracy], True),
        ("freshness", [clause.view for clause in contract.freshness], False),
        ("fallback", contract.fallback, True),
        ("privacy.purposes", contract.privacy.purposes, True),
        ("signoff", contract.signoff, True),
        *((f"accuracy[{i}].on_breach", clause.on_breach, True) for i, clause in enumerate(contract.accuracy)),
    ]
    for path, values, needed in lists:
        if needed and not values:
            yield path, "is empty", "at least one entry"
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            yield path, f"names {', '.join(twice)} twice", "each entry once"
