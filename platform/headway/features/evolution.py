"""Versions of a view: a changed definition gets its own keys online, and the old one is fed while a model uses it.

A version is told by what it computes (`describe`). The definitions of models in service lie, signed, in their folders,
so nothing else has to be remembered; what is breaking under one name is refused instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headway.core.canonical import canonical, sha256
from headway.core.errors import DefinitionError
from headway.core.times import format_duration
from headway.features.aggregates import Aggregate, Statistic
from headway.features.definitions import Entity, EventSource, Overflow, RowView, View, WindowView


def versions(
    current: Sequence[View], in_service: Iterable[Mapping[str, Any]], sources: Mapping[str, EventSource]
) -> tuple[View, ...]:
    """Return the current views, then those that models in service use and that read differently from them.

    Args:
        current: The project's views.
        in_service: Views as `describe` gave them when those models were trained.
        sources: Source name → its definition; a view whose source is gone is left out: nothing feeds it any more.
    """
    known = {canonical(view.describe()) for view in current}
    found = list(current)
    for described in in_service:
        text = canonical(dict(described))
        if text in known or described["source"] not in sources:
            continue
        known.add(text)
        found.append(view_of(described, sources[described["source"]]))
    return tuple(found)


def version_name(view: View) -> str:
    """Return `<name>@<hash>`, which tells the versions of one view apart."""
    return f"{view.name}@{sha256(canonical(view.describe()))[:8]}"


def view_of(described: Mapping[str, Any], source: EventSource) -> View:
    """Return the view that `describe` described, over a source whose columns may have got wider types since."""
    entity = Entity.of(described)
    if described.get("kind") == "row":
        return RowView(
            name=described["name"],
            entity=entity,
            source=replace(source, columns={**source.columns, **described["columns"]}),
            columns=tuple(described["columns"]),
            ttl=described["ttl"],
        )
    aggregates = [
        Aggregate(
            statistic=Statistic(a["statistic"]),
            column=a["column"],
            window=a["window"],
            offset=a["offset"],
            scale=a["scale"],
        )
        for a in described["aggregates"]
    ]
    return WindowView(
        name=described["name"],
        entity=entity,
        source=source,
        aggregates=tuple(aggregates),
        hop=None if "hop" not in described else format_duration(described["hop"]),
        max_events=described.get("max_events"),
        overflow=Overflow(described.get("overflow", Overflow.DROP_OLDEST)),
        retention=described["retention"],
    )


def require_compatible(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise DefinitionError where a view of the same name is about something else than before.

    Other windows, columns or limits make a new version. Another entity, key or source would silently mean other facts
    under the same feature names: that wants a new name.
    """
    for field in ("entity", "key", "dtype", "source"):
        if old.get(field, new[field]) != new[field]:
            raise DefinitionError(
                f"was {old[field]!r} and is {new[field]!r} now: features of one name would mean other things",
                field=f"view {new['name']}.{field}",
                expected=f"{old[field]!r}, or a view of another name",
            )
