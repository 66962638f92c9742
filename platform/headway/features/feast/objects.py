"""Views and entities in Feast's own terms: what its registry keeps, and its SDK and UI show.

Feast is imported inside the functions, because it takes many seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from headway.features.catalogue.card import ViewCard, source_card, view_card
from headway.features.definitions import AliasedView, Entity, View


def feast_table(view: View, warehouse: str) -> Any:
    """Return a view as Feast knows it, its source a folder of the lake's warehouse."""
    import feast
    from feast.types import Bool, Float32, Float64, Int64, String, UnixTimestamp

    types = {"int64": Int64, "float32": Float32, "float64": Float64, "string": String, "bool": Bool}
    types["timestamp"] = UnixTimestamp
    card = view_card(view)
    batch = feast.FileSource(
        name=view.source.name,
        path=f"{warehouse}/{view.source.table.replace('.', '/')}",
        timestamp_field="event_time",
        created_timestamp_column="known_time",
        owner=view.source.owner,
        description=view.source.description,
        tags=marks(source_card(view.source).tags),
    )
    return feast.FeatureView(
        name=view.name,
        entities=entities_of(view.entity),
        ttl=timedelta(microseconds=view.horizon or 0),
        schema=[
            feast.Field(
                name=column.name, dtype=types[column.dtype], description=column.meaning, tags=marks(column.tags)
            )
            for column in (*card.keys, *card.features)
        ],
        source=feast.PushSource(name=f"{view.name}_events", batch_source=batch),
        owner=card.owner,
        description=view.description,
        tags=_view_tags(card),
    )


def _view_tags(card: ViewCard) -> dict[str, str]:
    as_of = {"as_of": "write"} if card.kind == "window" else {}
    return {"engine": "headway", "limits": card.limits, **as_of, **marks(card.tags)}


def marks(tags: Sequence[str]) -> dict[str, str]:
    """Return sensitivity tags as Feast's: one, which its UI filters by."""
    return {"sensitivity": ",".join(tags)} if tags else {}


def joined(view: View | AliasedView, stored: Any) -> Any:
    """Return a Feast view as the service joins it: under its alias, by the alias's columns."""
    if not isinstance(view, AliasedView):
        return stored
    return stored.with_name(view.name).with_join_key_map(dict(view.key))


def entities_of(entity: Entity) -> list[Any]:
    """Return an entity as Feast knows it, where it has one key column only: of a composite key, one per column."""
    import feast

    kinds = {"string": feast.ValueType.STRING, "int64": feast.ValueType.INT64}
    one = len(entity.keys) == 1
    return [
        feast.Entity(
            name=entity.name if one else f"{entity.name}.{key}",
            join_keys=[key],
            value_type=kinds[dtype],
            description=entity.description,
        )
        for key, dtype in zip(entity.keys, entity.dtypes, strict=True)
    ]
