"""Sensitivity tags: declared on the columns of a source, they follow the data into views, features and services.

What is derived from a column has the column's tags, whatever the derivation: a count of distinct customers is tagged as
customers are. To call a result harmless is a decision about policy, not something that the lineage can tell.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from headway.core.errors import DefinitionError, names_near

if TYPE_CHECKING:
    from headway.features.definitions import AliasedView, FeatureService, RowView, WindowView

Tags = tuple[str, ...]
_TAG = re.compile(r"[a-z][a-z0-9_.-]{0,62}")


def require_tags(tags: Mapping[str, Sequence[str]], columns: Collection[str], *, field: str) -> None:
    """Raise DefinitionError for a column that is none, and for a tag that is none."""
    for column, given in tags.items():
        if column not in columns:
            raise DefinitionError(f"no column {column!r}{names_near(column, columns)}", field=field)
        if isinstance(given, str):
            raise DefinitionError(
                f"{given!r} is one text, not several tags", field=f"{field}.{column}", expected=f'("{given}",)'
            )
        for tag in given:
            if _TAG.fullmatch(tag) is None:
                raise DefinitionError(
                    f"{tag!r} is no tag", field=f"{field}.{column}", expected="lower-case letters, digits, _ . -"
                )


def view_tags(view: WindowView | RowView) -> Tags:
    """Return what a view as a whole contains: the tags of its key and of all its features."""
    found = key_tags(view)
    return _union([*found.values(), *feature_tags(view).values()])


def key_tags(view: WindowView | RowView | AliasedView) -> dict[str, Tags]:
    """Return column that the view is joined by → its tags: under an alias, those of the column it stands for."""
    stored = view.stored
    declared = stored.source.tags
    return {
        name: _union([declared.get(column, ())]) for name, column in zip(view.keys, stored.entity.keys, strict=True)
    }


def feature_tags(view: WindowView | RowView | AliasedView) -> dict[str, Tags]:
    """Return feature → the tags of the column that it is made from; a count of events is made from none."""
    from headway.features.definitions import RowView

    stored = view.stored
    columns = stored.columns if isinstance(stored, RowView) else [aggregate.column for aggregate in stored.aggregates]
    declared = stored.source.tags
    return {
        name: _union([declared.get(column, ()) if column is not None else ()])
        for name, column in zip(view.features, columns, strict=True)
    }


def service_tags(service: FeatureService) -> dict[str, Tags]:
    """Return every column that a service reads or makes, keys and request columns included → its tags."""
    found: dict[str, Tags] = {}
    for view in service.views:
        for name, tags in key_tags(view).items():
            found[name] = _union([found.get(name, ()), tags])
    found |= {name: _union([service.tags.get(name, ())]) for name in service.request}
    for view in service.views:
        found |= feature_tags(view)
    for step in service.transformations:
        inherited = _union([found.get(name, ()) for name in step.inputs])
        found |= dict.fromkeys(step.outputs, inherited)
    return found


def _union(several: Collection[Sequence[str]]) -> Tags:
    return tuple(sorted({tag for tags in several for tag in tags}))
