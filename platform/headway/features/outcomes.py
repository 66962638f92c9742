"""Outcomes as events of a source: the row that was decided on, and what became of it. Pure.

The event's id is the client's own where the decision's row had one (`FeatureService.event_id`), so that an outcome that
is posted and the same outcome in a file are one event. Else it is made from the decision's id: the same at every
attempt, and for integers negative, where ids that people give out are rare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import DefinitionError, names_near
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.arrow import ARROW_TYPES, cast
from headway.features.definitions import EventSource, FeatureService
from headway.features.quality.expectations import Kind

DECISION_ID = "decision_id"
_LABEL = "label"
_IDS = (1 << 63) - 1


def outcome_sources(
    sources: Iterable[EventSource], known: Sequence[str], service_of: Callable[[str], FeatureService]
) -> list[EventSource]:
    """Return the sources that outcomes feed; DefinitionError names what does not fit.

    Args:
        sources: All of a project.
        known: Its use cases.
        service_of: The feature service of a use case.
    """
    fed = [source for source in sources if source.outcomes is not None]
    for source in fed:
        assert source.outcomes is not None
        use_case = source.outcomes.use_case
        if use_case not in known:
            raise DefinitionError(
                f"no use case {use_case!r}{names_near(use_case, known)}",
                field=f"{source.name}.outcomes.use_case",
                expected=", ".join(known) or "a folder of serve_apps",
            )
        require_outcomes(source, service_of(use_case))
    return fed


def require_outcomes(source: EventSource, service: FeatureService) -> None:
    """Raise DefinitionError where decisions of a service cannot be events of a source."""
    assert source.outcomes is not None
    given = _given(service)
    field = f"{source.name}.columns"
    for name, dtype in source.columns.items():
        if name == source.outcomes.label:
            continue
        if name in given and given[name] != dtype:
            raise DefinitionError(f"{name!r} is {dtype}, and {given[name]} in {service.name}", field=field)
    identity = source.columns[source.id]
    if source.id not in given and identity not in ("int64", "string"):
        raise DefinitionError(
            f"no decision has an id of type {identity}", field=f"{source.name}.id", expected="int64 | string"
        )
    if source.id not in given and service.event_id is not None and service.event_id_dtype != identity:
        raise DefinitionError(
            f"the id is {identity}, and {service.event_id!r} of {service.name} is {service.event_id_dtype}",
            field=f"{source.name}.id",
            expected="one type",
        )
    full = {*service.keys, *service.request, source.id, source.outcomes.label}
    if source.bucket_by not in full:
        raise DefinitionError(
            f"decisions of {service.name} have no {source.bucket_by!r}",
            field=f"{source.name}.bucket_by",
            expected=", ".join(name for name in source.columns if name in full),
        )
    for expectation in source.expectations:
        if expectation.kind is Kind.NOT_NULL and expectation.columns[0] not in full:
            raise DefinitionError(
                f"{expectation.name}: decisions of {service.name} have no such column, and it would be null",
                field=f"{source.name}.expectations",
                expected="a column of the decision, or no such promise",
            )


def outcome_events(source: EventSource, service: FeatureService, decisions: pa.Table, outcomes: pa.Table) -> pa.Table:
    """Return the outcomes whose decision is there as events of the source, with `decision_id`.

    Args:
        source: What they become events of.
        service: What the decisions were made with.
        decisions: Rows of the decision log: `decision_id`, event_time, and the columns there are.
        outcomes: `decision_id`, `label` (0 or 1) and known_time.
    """
    assert source.outcomes is not None
    place = pc.index_in(outcomes[DECISION_ID], value_set=decisions[DECISION_ID].combine_chunks())
    there = pc.is_valid(place)
    outcomes, rows = outcomes.filter(there), decisions.take(place.filter(there))
    given = _given(service)
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name, dtype in source.columns.items():
        if name == source.outcomes.label:
            columns[name] = outcomes[_LABEL].cast(ARROW_TYPES[dtype])
        elif name in given and name in rows.column_names:
            columns[name] = cast(rows[name], dtype, name)
        else:
            columns[name] = pa.nulls(rows.num_rows, ARROW_TYPES[dtype])
    if columns[source.id].null_count:
        columns[source.id] = _identities(source, service, rows, columns[source.id])
    times = {EVENT_TIME: rows[EVENT_TIME], KNOWN_TIME: outcomes[KNOWN_TIME]}
    return pa.table({**columns, **times, DECISION_ID: outcomes[DECISION_ID]})


def made_id(decision_id: str, dtype: str) -> int | str:
    """Return the id of the event of a decision whose row had none."""
    if dtype == "string":
        return decision_id
    digest = hashlib.blake2b(decision_id.encode(), digest_size=8).digest()
    return -1 - int.from_bytes(digest, "big") % _IDS


def decision_columns(source: EventSource, service: FeatureService) -> dict[str, str]:
    """Return what is read of the decision log: column → dtype."""
    needed = {name: dtype for name, dtype in _given(service).items() if name in (*source.columns, service.event_id)}
    return {DECISION_ID: "string", EVENT_TIME: "timestamp", **needed}


def _given(service: FeatureService) -> dict[str, str]:
    """Return what a decision's row has: column → dtype."""
    own = {} if service.event_id is None else {service.event_id: service.event_id_dtype}
    request = {name: dtype for name, dtype in service.request.items() if name != EVENT_TIME}
    return {**service.key_columns, **request, **own}


def _identities(
    source: EventSource, service: FeatureService, rows: pa.Table, known: pa.ChunkedArray | pa.Array
) -> pa.Array:
    """Return the ids with those that lack: the client's, else made ones."""
    dtype = source.columns[source.id]
    found: Sequence[int | str | None] = known.to_pylist()
    if service.event_id is not None and service.event_id in rows.column_names:
        named = cast(rows[service.event_id], dtype, service.event_id).to_pylist()
        found = [other if own is None else own for own, other in zip(found, named, strict=True)]
    decisions = rows[DECISION_ID].to_pylist()
    ids = [made_id(decision, dtype) if own is None else own for own, decision in zip(found, decisions, strict=True)]
    return pa.array(ids, ARROW_TYPES[dtype])
