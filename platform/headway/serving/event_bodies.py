"""The bodies of `/v1/events/<source>`: one event, `{"events": [...]}`, or one event per line; split, not yet judged."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headway.core.errors import HeadwayError, InvalidValue, Malformed, TooLarge
from headway.features.streams.decoding import DeadLetter
from headway.serving.protocol import decode, invalid, refuse_duplicates

MAX_EVENTS = 1_000
"""Events of one request; a larger job belongs to `headway stream feed`."""
MAX_EVENT = 1 << 16
"""Bytes of one event: the stream's memory is shared by all sources."""
LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
"""Content types of one event per line."""


class _Events(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EVENTS = msgspec.json.Decoder(_Events)


def split(body: bytes, content_type: str) -> list[bytes]:
    """Return the JSON text of each event; Malformed, InvalidValue or TooLarge where the body as a whole is wrong."""
    if content_type in LINES:
        events = [line for line in body.split(b"\n") if not line.isspace() and line]
    else:
        members = decode(_MEMBERS, body)
        events = [bytes(raw) for raw in decode(_EVENTS, body).events] if list(members) == ["events"] else [body]
    if not events:
        raise InvalidValue("events", "no events", hint="send at least one")
    if len(events) > MAX_EVENTS:
        raise TooLarge(
            f"{len(events)} events, at most {MAX_EVENTS}",
            field="events",
            hint="split the request; headway stream feed takes any amount",
        )
    for place, event in enumerate(events):
        if len(event) > MAX_EVENT:
            raise TooLarge(f"{len(event)} bytes, an event has at most {MAX_EVENT}", field=f"events[{place}]")
    return events


def require_unique_members(events: Sequence[bytes]) -> None:
    """Raise Malformed, naming the event, where one names a member twice; what is no JSON at all passes."""
    for place, event in enumerate(events):
        try:
            refuse_duplicates(event)
        except Malformed as error:
            if error.field is not None:
                raise Malformed(error.message, field=f"events[{place}].{error.field}", hint=error.hint) from None


def refusal(letter: DeadLetter, place: int) -> HeadwayError:
    """Return why the event at a place of its request is refused: 422 with the field, 400 for what is no JSON."""
    where = f"events[{place}]"
    if not letter.field:
        try:
            msgspec.json.decode(letter.message.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Malformed(letter.reason, field=where, hint="send each event as one JSON object")
    named = invalid(msgspec.ValidationError(letter.reason.removeprefix(f"{letter.field}: ")))
    field = f"{where}.{letter.field}" if letter.field else where
    return InvalidValue(field, named.message, code=named.code)
