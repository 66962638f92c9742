"""YAML as a contract needs it: one meaning per text; duplicate keys, anchors, tags and surprises are refused.

`no` stays a word, `12:30` is not a number in base sixty, a date is a text, and a document cannot blow up by references.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 12


class ContractYamlError(ValueError):
    """The text is not acceptable YAML; the message says where and why."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # yaml's own class attribute
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse references, and nesting that no contract has."""
        event = self.peek_event()  # type: ignore[no-untyped-call]  # yaml's stubs leave it untyped
        if isinstance(event, yaml.AliasEvent):
            raise ContractYamlError(f"{_at(event)}an alias (*name): write the value itself")
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise ContractYamlError(f"{_at(event)}an anchor (&name) or a tag (!name): write the plain value")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ContractYamlError(f"{_at(event)}nested deeper than {_MAX_DEPTH}")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise ContractYamlError(f"{_at(event)}half a character (a lone surrogate)")
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse keys that are no text and keys that come twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise ContractYamlError(f"{_at(key)}a key that is not a word")
            if key.value in seen:
                raise ContractYamlError(f"{_at(key)}the key {key.value!r} comes twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _float(_loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value)


def _int(_loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse_yaml(data: bytes) -> Any:
    """Return builtin types; ContractYamlError says where and why not."""
    if len(data) > MAX_BYTES:
        raise ContractYamlError(f"larger than {MAX_BYTES} bytes")
    try:
        loader = _Loader(data.decode("utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ContractYamlError(f"{place}{error.problem or error.context}") from error
    except ContractYamlError:
        raise
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        raise ContractYamlError(str(error)) from error


def _at(item: Any) -> str:
    return f"line {item.start_mark.line + 1}: "
