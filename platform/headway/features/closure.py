"""Everything a function's result depends on, as text: its source, and that of the helpers and constants it uses.

A model is bound to the hash of this text. With the function alone, a changed constant beside it would change features
and no hash.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headway.core.errors import DefinitionError

_PLAIN = (bool, int, float, str, bytes, type(None))


def source_of(function: Callable[..., Any]) -> str:
    """Return the function's source, then each global it uses, by name: helpers and classes with theirs, values as text.

    Modules count by name: packages are pinned by the lock file. Raises DefinitionError for a value that has no stable
    text, such as an open file.
    """
    parts: dict[str, str] = {}
    _add(function, parts)
    return "\n".join([parts.pop(function.__qualname__), *(parts[name] for name in sorted(parts))])


def _add(thing: Any, parts: dict[str, str]) -> None:
    name = thing.__qualname__
    if name in parts:
        return
    try:
        parts[name] = inspect.getsource(thing)
    except (OSError, TypeError):
        raise DefinitionError(f"{name} has no source text", field=name, expected="a function in a file") from None
    for used, value in _globals(thing):
        if isinstance(value, types.ModuleType):
            continue
        if isinstance(value, (types.FunctionType, type)):
            if not value.__module__.startswith("headway.") and _is_project(value):
                _add(value, parts)
        else:
            parts[used] = f"{used} = {_text(value, f'{name}.{used}')}"


def _is_project(thing: Any) -> bool:
    """Return whether something belongs to the definitions and not to an installed package."""
    try:
        path = inspect.getfile(thing)
    except (OSError, TypeError):
        return False
    return "site-packages" not in path and "dist-packages" not in path


def _globals(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the globals and closure cells that a function or the methods of a class use."""
    if isinstance(thing, type):
        for member in vars(thing).values():
            if isinstance(member, types.FunctionType):
                yield from _globals(member)
        return
    pending = [thing.__code__]
    names: set[str] = set()
    while pending:
        code = pending.pop()
        names.update(code.co_names)
        pending += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    for name in sorted(names & thing.__globals__.keys()):
        yield name, thing.__globals__[name]
    for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
        yield name, cell.cell_contents


def _text(value: Any, field: str) -> str:
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return f"array({value.dtype}, {value.tolist()!r})"
    if isinstance(value, np.generic):
        return f"{value.dtype}({value.item()!r})"
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        items = [_text(item, field) for item in value]
        return f"{type(value).__name__}({', '.join(sorted(items) if isinstance(value, (set, frozenset)) else items)})"
    text = repr(value)
    if " at 0x" in text:
        raise DefinitionError(
            f"a {type(value).__name__} cannot be part of a model's evidence",
            field=field,
            expected="numbers, text, containers of them, functions",
        )
    return text
