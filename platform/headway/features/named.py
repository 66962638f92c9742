"""Definitions of a project by their names."""

from __future__ import annotations

from typing import TypeVar

from headway.core.errors import NotFound
from headway.core.project import Project
from headway.features.definitions import EventSource, FeatureService

_D = TypeVar("_D", EventSource, FeatureService)


def source_named(project: Project, name: str, *, field: str | None = None) -> EventSource:
    """Return a source; NotFound names the nearest, and `field` as the place that names it."""
    return _named(project, EventSource, "source", name, field)


def service_named(project: Project, name: str, *, field: str | None = None) -> FeatureService:
    """Return a feature service; NotFound names the nearest, and `field` as the place that names it."""
    return _named(project, FeatureService, "feature service", name, field)


def _named(project: Project, kind: type[_D], noun: str, name: str, field: str | None) -> _D:
    known = {definition.name: definition for definition in project.collect("features", kind)}
    if name not in known:
        raise NotFound(noun, name, known=sorted(known), field=field)
    return known[name]
