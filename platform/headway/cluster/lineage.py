"""Lineage: source and snapshot → view → service → model versions, as lines that can be followed either way."""

from __future__ import annotations

from dataclasses import dataclass

from headway.cluster.catalogue import Catalogue, ModelVersion
from headway.core.errors import NotFound
from headway.features.catalogue.card import ServiceCard, SourceCard, ViewCard


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """A model version at the end of a line, and the snapshot of the line's source that it was trained on."""

    use_case: str
    version: str
    aliases: tuple[str, ...]
    state: str
    snapshot_id: int | None
    """None: not known on this machine."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One way from a source to the models that rest on it."""

    source: str
    table: str
    snapshot_id: int | None
    """The newest; None: the table has no rows, or cannot be seen."""
    view: str
    version: str
    service: str
    sha256: str
    models: tuple[TrainedOn, ...]


def lineage(catalogue: Catalogue, name: str | None = None) -> list[Line]:
    """Return all lines, or those through a source, table, view, feature, service or use case.

    NotFound names near ones.
    """
    lines = []
    for service in catalogue.services:
        sources = {source.name: source for source in service.sources}
        for view in service.views:
            source = sources[view.source]
            if name is None or name in _names(catalogue, source, view, service):
                lines.append(_line(catalogue, source, view, service))
    if name is not None and not lines:
        raise NotFound("source, view, feature, service or use case", name, known=sorted(known_names(catalogue)))
    return lines


def known_names(catalogue: Catalogue) -> set[str]:
    """Return everything that has a name here, but single features."""
    named = {*catalogue.sources, *catalogue.views, *catalogue.use_cases, *(s.name for s in catalogue.services)}
    return named | {source.table for source in catalogue.sources.values()}


def _names(catalogue: Catalogue, source: SourceCard, view: ViewCard, service: ServiceCard) -> set[str]:
    features = {column.name for column in view.features}
    return {
        source.name,
        source.table,
        view.name,
        view.version,
        service.name,
        *catalogue.cases_of(service.name),
    } | features


def _line(catalogue: Catalogue, source: SourceCard, view: ViewCard, service: ServiceCard) -> Line:
    table = catalogue.tables.get(source.table)
    return Line(
        source=source.name,
        table=source.table,
        snapshot_id=table.snapshot_id if table else None,
        view=view.name,
        version=view.version,
        service=service.name,
        sha256=catalogue.hashes[service.name],
        models=tuple(
            _trained(model, source.table) for model in catalogue.models if _uses(catalogue, model, service.name)
        ),
    )


def _uses(catalogue: Catalogue, model: ModelVersion, service: str) -> bool:
    """Whether a version decides with a service: as signed, or as its contract says where that is not known."""
    return (model.service or catalogue.use_cases.get(model.use_case)) == service


def _trained(model: ModelVersion, table: str) -> TrainedOn:
    return TrainedOn(
        use_case=model.use_case,
        version=model.version,
        aliases=model.aliases,
        state=model.state,
        snapshot_id=model.snapshots.get(table),
    )
