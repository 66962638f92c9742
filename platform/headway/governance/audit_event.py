"""One audit event (INTERFACES §7), its place in the chain, and the port that everything governed appends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import msgspec

from headway.core.canonical import canonical, sha256
from headway.core.clock import Clock, ManualClock
from headway.core.errors import InvalidValue, Tampered

GENESIS = "0" * 64
"""`prev` of a chain's first event."""
_MAX_TEXT = 2_000

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A governed act."""

    seq: Count
    """0, 1, 2, … per writer."""
    writer: str
    """Whose chain this is."""
    time: Count
    """UTC microseconds."""
    actor: str
    """Subject of the principal who acted."""
    kind: str
    """human | ci | workload."""
    action: str
    """What was done: `contract.sign`, `registry.alias`, `data.read`."""
    resource: str
    """To what."""
    purpose: str
    """Why."""
    outcome: str
    """done | denied | failed."""
    refs: tuple[str, ...]
    """Hashes of what the act used or made: the edges of the evidence graph."""
    prev: Hash
    """Hash of the event before."""
    hash: Hash
    """SHA-256 of the canonical form of everything above."""

    def to_line(self) -> bytes:
        """Return the canonical line, newline included."""
        return canonical(msgspec.to_builtins(self)) + b"\n"

    def expected_hash(self) -> str:
        """Return the hash that the other fields demand."""
        fields = msgspec.to_builtins(self)
        del fields["hash"]
        return sha256(canonical(fields))


class AuditSink(Protocol):
    """Where governed acts are recorded; raising means that the act must not go on."""

    def append(
        self,
        *,
        actor: str,
        kind: str,
        action: str,
        resource: str,
        purpose: str,
        outcome: str,
        refs: Sequence[str] = (),
    ) -> AuditEvent:
        """Record one act durably."""
        ...


class MemoryAudit:
    """The sink of unit tests: the same chain, in a list."""

    def __init__(self, clock: Clock | None = None, writer: str = "memory") -> None:
        self._clock = clock or ManualClock()
        self._writer = writer
        self.events: list[AuditEvent] = []

    def append(
        self,
        *,
        actor: str,
        kind: str,
        action: str,
        resource: str,
        purpose: str,
        outcome: str,
        refs: Sequence[str] = (),
    ) -> AuditEvent:
        """Keep one event."""
        event = chain_event(
            self.events[-1] if self.events else None,
            writer=self._writer,
            time=self._clock.now(),
            actor=actor,
            kind=kind,
            action=action,
            resource=resource,
            purpose=purpose,
            outcome=outcome,
            refs=tuple(refs),
        )
        self.events.append(event)
        return event


def chain_event(
    last: AuditEvent | None,
    *,
    writer: str,
    time: int,
    actor: str,
    kind: str,
    action: str,
    resource: str,
    purpose: str,
    outcome: str,
    refs: tuple[str, ...],
) -> AuditEvent:
    """Return the event that follows `last`; InvalidValue names a field that cannot be recorded."""
    texts = {
        "actor": actor,
        "kind": kind,
        "action": action,
        "resource": resource,
        "purpose": purpose,
        "outcome": outcome,
    }
    for name, text in [*texts.items(), *((f"refs[{index}]", ref) for index, ref in enumerate(refs))]:
        if not isinstance(text, str) or not text or len(text) > _MAX_TEXT or not text.isprintable():
            raise InvalidValue(name, "must be printable text of 1 to 2000 characters")
    event = AuditEvent(
        seq=0 if last is None else last.seq + 1,
        writer=writer,
        time=time,
        refs=refs,
        prev=GENESIS if last is None else last.hash,
        hash=GENESIS,
        **texts,
    )
    return msgspec.structs.replace(event, hash=event.expected_hash())


def parse_event(line: bytes, *, where: str) -> AuditEvent:
    """Return the event of a line; Tampered unless it is canonical and its hash holds."""
    try:
        event = msgspec.json.decode(line, type=AuditEvent)
        whole = event.to_line() == line + b"\n" and event.expected_hash() == event.hash
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
        raise Tampered(f"{where}: not an audit event: {error}") from error
    if not whole:
        raise Tampered(f"{where}: the content of an event does not match its hash")
    return event
