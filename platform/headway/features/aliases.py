"""A view joined once more under another name and by other columns: what it rests on is stored once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from headway.core.errors import DefinitionError
from headway.features.entities import Entity, require_distinct

if TYPE_CHECKING:
    from headway.features.definitions import View


class Aliasable:
    """What every view offers beside its definition: how it is joined, and itself under another name."""

    name: str
    entity: Entity

    @property
    def stored(self) -> View:
        """The view whose state this reads: itself."""
        return cast("View", self)

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns of the request that it is joined by, in the order of the entity's key."""
        return self.entity.keys

    def aliased(self, name: str, *, key: Mapping[str, str]) -> AliasedView:
        """Return the view under another name, joined by other columns.

        `terminal_risk.aliased("home", key={"terminal_id": "home_terminal_id"})` has the features `home__…` of the
        terminal that the column `home_terminal_id` names; a key column that is not mapped keeps its name.
        """
        return AliasedView(name=name, stored=self.stored, key=key)


@dataclass(frozen=True, kw_only=True)
class AliasedView:
    """A view under another name, joined by other columns; made by `aliased`."""

    name: str
    stored: View
    """The view whose state it reads."""
    key: Mapping[str, str]
    """Key column of the view → the column that stands for it."""

    def __post_init__(self) -> None:
        """Refuse what is no other name, and what are no other columns."""
        own = self.stored.entity.keys
        for column in self.key:
            if column not in own:
                raise DefinitionError(
                    f"{column!r} is no key column of {self.stored.name}",
                    field=f"{self.name}.key",
                    expected=f"one of {', '.join(own)}",
                )
        if self.keys == own:
            raise DefinitionError(
                f"{self.stored.name} itself is joined by {', '.join(own)}",
                field=f"{self.name}.key",
                expected="another column for at least one of them",
            )
        require_distinct(self.keys, field=f"{self.name}.key")
        if self.name == self.stored.name:
            raise DefinitionError("an alias of this name", field=self.name, expected="another name than the view's")

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns of the request that it is joined by, in the order of the entity's key."""
        return tuple(self.key.get(column, column) for column in self.stored.entity.keys)

    @property
    def features(self) -> tuple[str, ...]:
        """Full names, in the order of the view's: `<alias>__<aggregate or column>`."""
        return tuple(self.name + name.removeprefix(self.stored.name) for name in self.stored.features)


def require_joins(views: Sequence[View | AliasedView], taken: Collection[str], *, field: str) -> None:
    """Refuse views of a service that cannot stand beside each other.

    Args:
        views: What is joined.
        taken: Names of other columns of the service.
        field: Named in the DefinitionError.
    """
    names = [view.name for view in views]
    stored: dict[str, View] = {}
    joined: dict[tuple[str, ...], str] = {}
    dtypes: dict[str, str] = {}
    for view in views:
        if stored.setdefault(view.stored.name, view.stored) != view.stored or names.count(view.name) > 1:
            raise DefinitionError(f"two views of the name {view.name!r}", field=field, expected="one name for each")
        other = joined.setdefault((view.stored.name, *view.keys), view.name)
        if other != view.name:
            raise DefinitionError(
                f"{other!r} and {view.name!r} are one view joined by the same columns: {', '.join(view.keys)}",
                field=field,
                expected="each view once by the same columns",
            )
        for column, dtype in zip(view.keys, view.stored.entity.dtypes, strict=True):
            if column in taken:
                raise DefinitionError(
                    f"{view.name!r} is joined by {column!r}, which is another column of the service too",
                    field=field,
                    expected="key columns of their own",
                )
            if dtypes.setdefault(column, dtype) != dtype:
                raise DefinitionError(
                    f"the key column {column!r} is {dtypes[column]}, and {dtype} for {view.name!r}",
                    field=field,
                    expected="one dtype per column",
                )
    for view in views:
        if view.stored.name != view.name and view.name in stored:
            raise DefinitionError(f"two views of the name {view.name!r}", field=field, expected="one name for each")
