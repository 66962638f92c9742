"""What the catalogue knows of one thing, by its name."""

from __future__ import annotations

from typing import Any

import msgspec

from headway.cluster.catalogue import Catalogue
from headway.cluster.lineage import known_names
from headway.core.errors import NotFound


def facts(catalogue: Catalogue, name: str) -> dict[str, Any]:
    """Return the card of a service, view, source or feature with what is known of it now; NotFound names near ones."""
    for service in catalogue.services:
        if service.name == name:
            return {"kind": "service", **_service(catalogue, name), "notes": list(catalogue.notes)}
    if name in catalogue.views:
        return {**_view(catalogue, name), "notes": list(catalogue.notes)}
    sources = catalogue.sources
    if name in sources or name in {source.table for source in sources.values()}:
        return {"kind": "source", **_source(catalogue, name.removeprefix("events.")), "notes": list(catalogue.notes)}
    for service in catalogue.services:
        for column in service.columns:
            if column.name == name:
                readers = [s.name for s in catalogue.services if any(c.name == name for c in s.columns)]
                view = next((v for v in service.views if any(c.name == name for c in v.features)), None)
                made = {"view": view.name, "version": view.version, "owner": view.owner} if view else {}
                return {"kind": "feature", **msgspec.to_builtins(column), **made, "used_by": readers}
    features = [column.name for service in catalogue.services for column in service.columns]
    raise NotFound("service, view, source or feature", name, known=[*known_names(catalogue), *features])


def _service(catalogue: Catalogue, name: str) -> dict[str, Any]:
    card = next(service for service in catalogue.services if service.name == name)
    cases = catalogue.cases_of(name)
    return {
        "name": name,
        "description": card.description,
        "sha256": catalogue.hashes[name],
        "tags": list(card.tags),
        "joins": list(card.joins),
        "use_cases": cases,
        "columns": msgspec.to_builtins(card.columns),
        "decisions": [msgspec.to_builtins(one) for one in catalogue.decisions if one.use_case in cases],
    }


def _view(catalogue: Catalogue, name: str) -> dict[str, Any]:
    card = catalogue.views[name]
    services = catalogue.services_of(name)
    cases = [case for service in services for case in catalogue.cases_of(service)]
    described: dict[str, Any] = msgspec.to_builtins(card)
    table = catalogue.sources[card.source].table
    return {
        **described,
        "kind": "view",
        "evaluated": card.kind,
        "complete_to": catalogue.watermarks.get(card.version),
        "table": msgspec.to_builtins(catalogue.tables.get(table)),
        "used_by": services,
        "use_cases": cases,
        "decisions": [msgspec.to_builtins(one) for one in catalogue.decisions if one.use_case in cases],
    }


def _source(catalogue: Catalogue, name: str) -> dict[str, Any]:
    card = catalogue.sources[name]
    described: dict[str, Any] = msgspec.to_builtins(card)
    return {
        **described,
        "lake": msgspec.to_builtins(catalogue.tables.get(card.table)),
        "used_by": [view.name for view in catalogue.views.values() if view.source == name],
        "reads": [msgspec.to_builtins(one) for one in catalogue.reads if one.table == card.table],
    }
