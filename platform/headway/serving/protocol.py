"""The friendly JSON of `/v1/decisions` and `/v1/outcomes`: strict decoding, one encoder, errors that name the field."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta

from headway.core.errors import HeadwayError, InvalidValue, Malformed, TooLarge
from headway.core.times import EVENT_TIME, parse_time, require_time
from headway.serving.schema import MAX_ROWS, DecisionSchema, Row

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_NAMED = re.compile(r"(?P<kind>missing required|contains unknown) field `(?P<name>.*)`")
EXPLAIN = "explain"
"""The query member, and the parameter of the Open Inference Protocol, that asks for reasons."""
_FLAGS = {"true": True, "false": False}
_EXPLAINED = 1 << 16
"""Bytes of a body in which the number that is no JSON is looked for."""


class DecisionCall(msgspec.Struct, kw_only=True):
    """A parsed request for decisions."""

    rows: list[Row]
    id: str | None = None
    as_of: int | None = None
    """UTC microseconds; needs the scope `replay:<use case>`."""
    replayed: bool = False
    """The caller chose the time, by as_of or by a row's event_time."""
    patience_s: float | None = None
    """What is left of the caller's own deadline."""
    size: int = 0
    """Bytes of the body."""
    explain: bool = False
    """The caller wants reasons."""


class OutcomeRow(msgspec.Struct, forbid_unknown_fields=True):
    """What became of one decision."""

    decision_id: Annotated[str, Meta(max_length=64)]
    label: bool | int | str
    event_time: int | str
    known_time: int | str | None = None


class OutcomesBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `/v1/outcomes`."""

    outcomes: list[OutcomeRow]


class Decision(msgspec.Struct, omit_defaults=False, gc=False):
    """One answer; `arm` says which step of the ladder gave it."""

    decision_id: str
    score: float
    label: str
    arm: str
    degraded: list[str]


class DecisionsBody(msgspec.Struct, gc=False):
    """Answer of `/v1/decisions`."""

    id: str
    model_version: str
    decisions: list[Decision]


class DecisionDecoder:
    """Decodes `/v1/decisions` bodies of one use case."""

    def __init__(self, schema: DecisionSchema) -> None:
        self._width = len(schema.columns)
        self._own_ids = schema.event_id is not None
        body = msgspec.defstruct(
            "DecisionsRequest",
            [
                ("rows", list[schema.row_type()]),  # type: ignore[misc]  # the row type is made at run time
                ("id", Annotated[str, Meta(min_length=1, max_length=128)] | None, None),
                ("as_of", int | str | None, None),
            ],
            forbid_unknown_fields=True,
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(body)
        self._astuple = msgspec.structs.astuple

    def decode(self, data: bytes) -> DecisionCall:
        """Return the rows; raise Malformed, InvalidValue or TooLarge naming the field."""
        body = decode(self._decoder, data)
        count = len(body.rows)
        if count == 0:
            raise InvalidValue("rows", "no rows", hint="send at least one")
        if count > MAX_ROWS:
            raise TooLarge(f"{count} rows, at most {MAX_ROWS}", field="rows", hint="split the request")
        rows = [self._astuple(row) for row in body.rows]
        members = 1 + (body.id is not None) + (body.as_of is not None) + count * self._width
        replayed = body.as_of is not None
        if self._own_ids:
            members += count - [row[-2] for row in rows].count(None)
        for index, row in enumerate(rows):
            if row[-1] is not None:
                replayed = True
                members += 1
                rows[index] = (*row[:-1], moment(row[-1], f"rows[{index}].{EVENT_TIME}"))
        if data.count(b":") != members:
            refuse_duplicates(data)
        as_of = None if body.as_of is None else moment(body.as_of, "as_of")
        return DecisionCall(rows=rows, id=body.id, as_of=as_of, replayed=replayed, size=len(data))


_OUTCOMES: msgspec.json.Decoder[OutcomesBody] = msgspec.json.Decoder(OutcomesBody)


def decode_outcomes(data: bytes) -> list[OutcomeRow]:
    """Return the outcomes of a body, times as microseconds."""
    body: OutcomesBody = decode(_OUTCOMES, data)
    refuse_duplicates(data)
    if len(body.outcomes) > MAX_ROWS:
        raise TooLarge(f"{len(body.outcomes)} outcomes, at most {MAX_ROWS}", field="outcomes", hint="split the request")
    for index, row in enumerate(body.outcomes):
        row.event_time = moment(row.event_time, f"outcomes[{index}].event_time")
        if row.known_time is not None:
            row.known_time = moment(row.known_time, f"outcomes[{index}].known_time")
    return body.outcomes


def wants_reasons(query: str) -> bool:
    """Return what a query string says of `explain`; InvalidValue for anything but true or false."""
    given = parse_qs(query, keep_blank_values=True).get(EXPLAIN, [])
    if len(given) > 1 or any(value not in _FLAGS for value in given):
        raise InvalidValue(EXPLAIN, f"{given[-1][:20]!r} is not true or false", hint="?explain=true, or leave it out")
    return bool(given) and _FLAGS[given[0]]


def moment(value: int | str, field: str) -> int:
    """Return microseconds for RFC 3339 text or an integer of microseconds."""
    if isinstance(value, str):
        value = parse_time(value, field=field)
    return require_time(value, field=field)


def decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    """Decode with errors from our tree: 400 for what is no JSON, 422 with the field for what is not the schema."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except msgspec.DecodeError as error:
        refuse_not_finite(data)
        raise Malformed(f"the body is not JSON: {error}", hint="send one JSON object, UTF-8") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8: {error.reason}", hint="send one JSON object, UTF-8") from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None


def invalid(error: msgspec.ValidationError) -> HeadwayError:
    """Return the InvalidValue that says which field, from the decoder's message."""
    match = _PLACE.match(str(error))
    what, path = (match["what"], match["path"] or "$") if match else (str(error), "$")
    field = path.removeprefix("$").removeprefix(".")
    named = _NAMED.search(what)
    if named:
        field = f"{field}.{named['name']}" if field else named["name"]
        if named["kind"] == "missing required":
            return InvalidValue(field, "required and missing", code="feature_missing")
        return InvalidValue(field, "unknown field", code="unknown_field")
    return InvalidValue(field or "body", what[:1].lower() + what[1:].replace("`", ""))


def refuse_not_finite(data: bytes) -> None:
    """Name the field where a body says NaN or Infinity, which JSON does not know but many writers send."""
    if len(data) > _EXPLAINED:
        return
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    place = _not_finite(body)
    if place is not None:
        raise InvalidValue(place.removeprefix(".") or "body", "not a finite number", code="not_finite")


def _not_finite(value: Any) -> str | None:
    """Return the place of the first number that is not finite; the way to it is written on the way back."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    if isinstance(value, dict):
        for name, item in value.items():
            found = _not_finite(item)
            if found is not None:
                return f".{name}{found}"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found = _not_finite(item)
            if found is not None:
                return f"[{index}]{found}"
    return None


def refuse_duplicates(data: bytes) -> None:
    """Raise Malformed if an object names a member twice: which one counts would be anybody's guess."""
    try:
        json.loads(data, object_pairs_hook=_unique)
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise Malformed("the same member twice in one object", field=name, hint="send each member once")
        members[name] = value
    return members
