"""What decisions are about, and the key that names one: a column, or several together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.core.errors import DefinitionError

KEY_DTYPES = ("int64", "string")
_LOGGED = (
    *("decision_id", "request_id", "sub", "score", "label", "arm", "model_version", "degraded"),
    *("event_time", "known_time", "ingested_at"),
)
"""What the decision log calls its own columns."""
_PIECE = re.compile(r"\\.|:|[^\\:]+", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Entity:
    """Something decisions are about."""

    name: str
    key: str | tuple[str, ...]
    """Column that identifies it, or the columns that do so together: a row in which one of them is null has no key."""
    dtype: str | tuple[str, ...] = "int64"
    """int64 | string: of every key column, or one for each."""
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a key that is none; a key of one column is the same however it is written."""
        keys, dtypes = self.keys, self.dtypes
        if not keys or not all(keys):
            raise DefinitionError("no key column", field=f"{self.name}.key", expected="one column, or several")
        require_distinct(keys, field=f"{self.name}.key")
        if len(dtypes) != len(keys):
            raise DefinitionError(
                f"{len(dtypes)} dtypes for {len(keys)} key columns",
                field=f"{self.name}.dtype",
                expected="one for all, or one for each",
            )
        for dtype in dtypes:
            if dtype not in KEY_DTYPES:
                raise DefinitionError(
                    f"{dtype!r} is no dtype of a key", field=f"{self.name}.dtype", expected=" | ".join(KEY_DTYPES)
                )
        object.__setattr__(self, "key", keys[0] if len(keys) == 1 else keys)
        object.__setattr__(self, "dtype", dtypes[0] if len(keys) == 1 else dtypes)

    @property
    def keys(self) -> tuple[str, ...]:
        """The key columns."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtype of each key column."""
        return (self.dtype,) * len(self.keys) if isinstance(self.dtype, str) else tuple(self.dtype)

    def describe(self) -> dict[str, Any]:
        """Return the definition as builtin types, as part of a view's."""
        one = len(self.keys) == 1
        return {
            "entity": self.name,
            "key": self.keys[0] if one else list(self.keys),
            "dtype": self.dtypes[0] if one else list(self.dtypes),
        }

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Entity:
        """Return the entity that `describe` described."""
        key, dtype = (tuple(x) if isinstance(x, list) else x for x in (described["key"], described["dtype"]))
        return cls(name=described["entity"], key=key, dtype=dtype)


def key_text(parts: Iterable[int | str]) -> str:
    """Return one text for the parts of a composite key; no two keys of an entity have the same."""
    return ":".join(
        part.replace("\\", "\\\\").replace(":", "\\:") if isinstance(part, str) else str(part) for part in parts
    )


def key_parts(text: str, dtypes: Sequence[str]) -> tuple[int | str, ...]:
    """Return the parts of a key from its text: of a key of one column the text itself."""
    texts = [text]
    if len(dtypes) > 1:
        texts = [""]
        for piece in _PIECE.findall(text):
            if piece == ":":
                texts.append("")
            else:
                texts[-1] += piece.removeprefix("\\")
    return tuple(part if dtype == "string" else int(part) for part, dtype in zip(texts, dtypes, strict=True))


def require_event_id(name: str, dtype: str, taken: Sequence[str], *, field: str) -> None:
    """Raise DefinitionError where a name or dtype cannot be that of an optional id in a decision's row."""
    if dtype not in KEY_DTYPES:
        raise DefinitionError(
            f"{dtype!r} is no dtype of an id", field=f"{field}_dtype", expected=" | ".join(KEY_DTYPES)
        )
    if name in (*taken, *_LOGGED):
        raise DefinitionError(
            f"{name!r} is another column of a decision", field=field, expected="a name that nothing else has"
        )


def require_distinct(columns: tuple[str, ...], *, field: str) -> None:
    """Raise DefinitionError where a key names a column twice."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DefinitionError(f"{', '.join(twice)} comes twice", field=field, expected="each key column once")
