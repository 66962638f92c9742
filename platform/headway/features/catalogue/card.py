"""What the catalogue says of sources, views and services beyond their computation: whose they are, and in words what.

A card is kept in the registry beside the definition and is no part of its hash: a new owner makes no new model.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headway.core.times import format_duration
from headway.features.aggregates import Aggregate, Statistic
from headway.features.definitions import AliasedView, EventSource, FeatureService, RowView, View, WindowView
from headway.features.sensitivity import feature_tags, key_tags, service_tags, view_tags

_MARK = "headway:w:"


class ColumnCard(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a source or request, a key, or a feature."""

    name: str
    dtype: str
    tags: tuple[str, ...] = ()
    """Sensitivity tags, its own or inherited."""
    meaning: str = ""
    """How it is made."""


class SourceCard(msgspec.Struct, frozen=True, kw_only=True):
    """Where facts come from."""

    name: str
    table: str
    """Lake table."""
    owner: str
    description: str
    columns: tuple[ColumnCard, ...]
    id: str
    purposes: tuple[str, ...]
    tags: tuple[str, ...]
    """Of all columns."""


class ViewCard(msgspec.Struct, frozen=True, kw_only=True):
    """Features of one source."""

    name: str
    version: str
    """`<name>@<hash>` of the stored form: what the online store's watermark stands under."""
    kind: str
    """window | row."""
    source: str
    entity: str
    owner: str
    description: str
    keys: tuple[ColumnCard, ...]
    features: tuple[ColumnCard, ...]
    tags: tuple[str, ...]
    """Of its keys and all its features."""
    limits: str
    """How exact it is, and how far back it looks, in words."""
    hop_us: int = 0
    """Error bound: microseconds by which a window may reach too far back; 0: exact."""


class ServiceCard(msgspec.Struct, frozen=True, kw_only=True):
    """The features of one model."""

    name: str
    description: str
    joins: tuple[str, ...]
    """What is joined, in words: `view`, or `alias: view by column`."""
    views: tuple[ViewCard, ...]
    sources: tuple[SourceCard, ...]
    columns: tuple[ColumnCard, ...]
    """Model input in order."""
    tags: tuple[str, ...]
    """Of everything that it reads."""


def service_card(service: FeatureService) -> ServiceCard:
    """Return the card of a service, with those of its views and sources."""
    tags = service_tags(service)
    words = meanings(service)
    sources = {view.source.name: view.source for view in service.stored}
    return ServiceCard(
        name=service.name,
        description=service.description,
        joins=tuple(_join(view) for view in service.views),
        views=tuple(view_card(view) for view in service.stored),
        sources=tuple(source_card(source) for source in sources.values()),
        columns=tuple(
            ColumnCard(name=name, dtype=_dtype(service, name), tags=tags[name], meaning=words.get(name, ""))
            for name in service.features
        ),
        tags=_sorted(tag for found in tags.values() for tag in found),
    )


def view_card(view: View) -> ViewCard:
    """Return the card of a stored view."""
    from headway.features.online_keys import watermark_key  # brings numba, which readers of cards do without

    tags, keys = feature_tags(view), key_tags(view)
    dtypes = view.dtypes if isinstance(view, RowView) else ("float32",) * len(view.features)
    meanings = _view_meanings(view)
    return ViewCard(
        name=view.name,
        version=watermark_key(view).decode().removeprefix(_MARK),
        kind="row" if isinstance(view, RowView) else "window",
        source=view.source.name,
        entity=view.entity.name,
        owner=view.owner or view.source.owner,
        description=view.description,
        keys=tuple(
            ColumnCard(name=key, dtype=dtype, tags=keys[key])
            for key, dtype in zip(view.keys, view.entity.dtypes, strict=True)
        ),
        features=tuple(
            ColumnCard(name=name, dtype=dtype, tags=tags[name], meaning=meanings[name])
            for name, dtype in zip(view.features, dtypes, strict=True)
        ),
        tags=view_tags(view),
        limits=_limits(view),
        hop_us=view.step if isinstance(view, WindowView) else 0,
    )


def source_card(source: EventSource) -> SourceCard:
    """Return the card of a source."""
    return SourceCard(
        name=source.name,
        table=source.table,
        owner=source.owner,
        description=source.description,
        columns=tuple(
            ColumnCard(name=name, dtype=dtype, tags=_sorted(source.tags.get(name, ())))
            for name, dtype in source.columns.items()
        ),
        id=source.id,
        purposes=tuple(source.purposes),
        tags=_sorted(tag for tags in source.tags.values() for tag in tags),
    )


def meanings(service: FeatureService) -> dict[str, str]:
    """Return every request column and feature of a service → how it is made, in words."""
    found = dict.fromkeys(service.request, "comes with the request")
    for view in service.views:
        own = _view_meanings(view.stored)
        found |= dict(zip(view.features, own.values(), strict=True))
    for step in service.transformations:
        found |= dict.fromkeys(step.outputs, f"{step.name} of {', '.join(step.inputs)}")
    return found


def _view_meanings(view: View) -> dict[str, str]:
    if isinstance(view, RowView):
        return {name: f"{column} of the newest row" for name, column in zip(view.features, view.columns, strict=True)}
    return {name: _words(a) for name, a in zip(view.features, view.aggregates, strict=True)}


def _words(aggregate: Aggregate) -> str:
    what = {
        Statistic.COUNT: "number of events",
        Statistic.SINCE_FIRST: "days since the first event",
        Statistic.SINCE_LAST: "days since the last event",
    }.get(aggregate.statistic, f"{aggregate.statistic.value} of {aggregate.column}")
    window = "all that is kept" if aggregate.window is None else format_duration(aggregate.window)
    late = f", up to {format_duration(aggregate.offset)} before the decision" if aggregate.offset else ""
    return f"{what}, {window}{late}"


def _limits(view: View) -> str:
    if isinstance(view, RowView):
        return "a row never expires" if view.ttl is None else f"a row expires after {format_duration(view.ttl)}"
    reach = "everything is kept" if view.reach is None else f"{format_duration(view.reach)} are kept"
    if view.max_events is not None:
        beyond = "the oldest are dropped" if view.overflow.value == "drop_oldest" else "writes are refused"
        return f"exact, at most {view.max_events:,} events per key, beyond which {beyond}; {reach}"
    hop = format_duration(view.step)
    return f"tiles of {hop}: a window may begin up to {hop} too early; {reach}"


def _join(view: View | AliasedView) -> str:
    if not isinstance(view, AliasedView):
        return view.name
    return f"{view.name}: {view.stored.name} by {', '.join(view.keys)}"


def _dtype(service: FeatureService, name: str) -> str:
    if name in service.request:
        return service.request[name]
    for view in service.views:
        if isinstance(view.stored, RowView) and name in view.features:
            return view.stored.dtypes[view.features.index(name)]
    return "float32"


def _sorted(tags: Any) -> tuple[str, ...]:
    return tuple(sorted(set(tags)))
