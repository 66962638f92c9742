"""The routing record: which version of a use case serves. It is the truth; the registry's aliases follow it."""

from __future__ import annotations

import msgspec

from headway.core.control import ControlStore
from headway.core.errors import Conflict

_ATTEMPTS = 5


class VersionRef(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version and where its verified files lie."""

    version: str
    path: str
    """Folder of the artefact, readable by every replica."""
    statement_sha256: str
    """Hash of the signed statement's payload: pins exactly this version's bytes."""


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves; `generation` grows by one with every transition."""

    generation: int = 0
    champion: VersionRef | None = None
    previous: VersionRef | None = None
    reason: str = ""
    changed_at: int = 0
    """UTC microseconds."""
    changed_by: str = ""


def routing_key(use_case: str) -> str:
    """Return the control-store key of a use case's routing record."""
    return f"routing:{use_case}"


def read_routing(store: ControlStore, use_case: str) -> Routing:
    """Return the record; an unwritten one has generation 0 and no champion."""
    record = store.get(routing_key(use_case))
    return Routing() if record is None else msgspec.json.decode(record.value, type=Routing)


def promote(store: ControlStore, use_case: str, champion: VersionRef, *, reason: str, by: str, now: int) -> Routing:
    """Make `champion` serve and keep the old one as `previous`; repeating the same promotion changes nothing.

    Raises Conflict when other writers win five times in a row.
    """
    for _ in range(_ATTEMPTS):
        record = store.get(routing_key(use_case))
        current = Routing() if record is None else msgspec.json.decode(record.value, type=Routing)
        if current.champion == champion:
            return current
        routing = Routing(
            generation=current.generation + 1,
            champion=champion,
            previous=current.champion,
            reason=reason,
            changed_at=now,
            changed_by=by,
        )
        try:
            store.put(
                routing_key(use_case), msgspec.json.encode(routing), expected=0 if record is None else record.version
            )
        except Conflict:
            continue
        return routing
    raise Conflict(f"the routing record of {use_case} keeps changing", hint="look who else is writing: headway status")
