"""The catalogue of a running platform: what the registry says, and what store, lake and model registry know of it.

Each part is looked up by itself: what cannot be had now is left out and named, the rest is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from headway.cluster.compose import Installation
from headway.cluster.lake_status import TableStatus, lake_status
from headway.cluster.usage import Decisions, Reads, decisions, reads
from headway.core.errors import HeadwayError
from headway.core.routing import read_routing
from headway.core.settings import Settings
from headway.core.times import format_time
from headway.core.types import Principal
from headway.features.catalogue.card import ServiceCard, SourceCard, ViewCard
from headway.features.catalogue.registry import applied
from headway.governance.contract import load_contract
from headway.governance.keys import MODEL_SIGN
from headway.governance.statement import PAYLOAD_TYPE, ModelStatement, read_statement

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A registered version of a use case, and what it was trained on."""

    use_case: str
    version: str
    state: str
    aliases: tuple[str, ...]
    service: str = ""
    """Feature service, as signed; empty where the statement is not on this machine."""
    created: str = ""
    """RFC 3339."""
    snapshots: Mapping[str, int] = field(default_factory=dict)
    """Lake table → snapshot id."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Everything that is known; `notes` say what is not, and why."""

    made: str
    """RFC 3339."""
    services: tuple[ServiceCard, ...]
    hashes: Mapping[str, str]
    """Service → hash of its definition."""
    use_cases: Mapping[str, str] = field(default_factory=dict)
    """Use case → feature service that its contract decides with."""
    tables: Mapping[str, TableStatus] = field(default_factory=dict)
    watermarks: Mapping[str, str] = field(default_factory=dict)
    """Version of a view → RFC 3339 known_time up to which the online store is complete; empty: never filled."""
    models: tuple[ModelVersion, ...] = ()
    decisions: tuple[Decisions, ...] = ()
    reads: tuple[Reads, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def views(self) -> dict[str, ViewCard]:
        """Name → view."""
        return {view.name: view for service in self.services for view in service.views}

    @property
    def sources(self) -> dict[str, SourceCard]:
        """Name → source."""
        return {source.name: source for service in self.services for source in service.sources}

    def services_of(self, view: str) -> list[str]:
        """Return the services that read a view."""
        return [service.name for service in self.services if any(one.name == view for one in service.views)]

    def cases_of(self, service: str) -> list[str]:
        """Return the use cases that decide with a service."""
        return [case for case, used in self.use_cases.items() if used == service]


def registered(settings: Settings, *, now: int) -> Catalogue:
    """Return what the registry alone says: quick, for everybody, without a running platform."""
    found = applied(settings)
    old = [entry.name for entry in found if entry.card is None]
    return Catalogue(
        made=format_time(now),
        services=tuple(entry.card for entry in found if entry.card is not None),
        hashes={entry.name: entry.sha256 for entry in found},
        notes=(f"without a card: {', '.join(old)}; headway features apply",) if old else (),
    )


def complete(at: Installation, principal: Principal, *, usage: bool = True, every_version: bool = True) -> Catalogue:
    """Return the catalogue with rows, watermarks, model versions and usage, as far as they can be had.

    Needs `data:read`; model versions need `registry:read`, reads of tables `audit:read`. Without `every_version` only
    those that routing names are shown, and the model registry, whose client takes seconds to load, is not asked.
    """
    principal.require("data", "read")
    known, notes = registered(at.settings, now=at.clock.now()), list[str]()

    def attempt(what: str, look: Callable[[], T], otherwise: T) -> T:
        try:
            return look()
        except HeadwayError as error:
            notes.append(f"{what} not shown: {error}")
            return otherwise

    cases = attempt("use cases", lambda: _use_cases(at), dict[str, str]())
    tables = attempt("lake tables", lambda: lake_status(at.settings, principal), list[TableStatus]())
    logged = {table.table for table in tables}
    versions, seen = list[ModelVersion](), list[Decisions]()
    for case in cases:
        look = partial(_versions if every_version else _serving, at, case, principal)
        versions += attempt(f"versions of {case}", look, [])
        if usage and f"decisions.{case}" in logged:
            seen += attempt(f"decisions of {case}", partial(_decisions, at, case), [])
    read = attempt("reads", lambda: reads(at.settings.home / "audit", principal), list[Reads]()) if usage else []
    return replace(
        known,
        use_cases=cases,
        tables={table.table: table for table in tables},
        watermarks=attempt("watermarks", lambda: _watermarks(at, list(known.views.values())), dict[str, str]()),
        models=tuple(versions),
        decisions=tuple(seen),
        reads=tuple(read),
        notes=(*known.notes, *notes),
    )


def _use_cases(at: Installation) -> dict[str, str]:
    return {
        case: load_contract(at.project.app_folder(case) / "contract.yaml").contract.decision.feature_service
        for case in at.project.use_cases()
    }


def _watermarks(at: Installation, views: Sequence[ViewCard]) -> dict[str, str]:
    marks = at.online.watermarks([view.version for view in views])
    return {version: format_time(mark) if mark else "" for version, mark in marks.items()}


def _versions(at: Installation, case: str, principal: Principal) -> list[ModelVersion]:
    return [
        _version(at, case, one.version, one.path if one.state == "ready" else None, one.state, one.aliases)
        for one in at.registry.versions(case, principal)
    ]


def _serving(at: Installation, case: str, principal: Principal) -> list[ModelVersion]:
    principal.require("registry", "read")
    routing = read_routing(at.control, case)
    named = (("champion", routing.champion), ("previous", routing.previous))
    return [
        _version(at, case, ref.version, Path(ref.path), "ready", (alias,)) for alias, ref in named if ref is not None
    ]


def _version(
    at: Installation, case: str, version: str, folder: Path | None, state: str, aliases: tuple[str, ...]
) -> ModelVersion:
    """Return a version with what its signed statement says, where that is on this machine."""
    if folder is None or not folder.exists():
        return ModelVersion(use_case=case, version=version, state=state, aliases=aliases)
    payload = at.trust.verify(read_statement(folder), PAYLOAD_TYPE, MODEL_SIGN)
    statement = msgspec.json.decode(payload, type=ModelStatement)
    return ModelVersion(
        use_case=case,
        version=version,
        state=state,
        aliases=aliases,
        service=statement.feature_service,
        created=format_time(statement.created),
        snapshots=dict(statement.snapshots),
    )


def _decisions(at: Installation, case: str) -> list[Decisions]:
    worker = at.workload("headway-catalogue", ["data:read"], "monitoring")
    return decisions(case, at.reader, worker, now=at.clock.now())
