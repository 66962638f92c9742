"""Loads a use case's contract: parsed strictly, checked, and hashed over its canonical form.

The hash is over what was understood, not over the text: comments and spelling (`5s`, `5000ms`) may change, meaning may
not.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headway.core.canonical import canonical, sha256
from headway.core.errors import DefinitionError, HeadwayError
from headway.governance.contract_rules import violations
from headway.governance.contract_schema import Contract, Duration, Limits, Throughput
from headway.governance.contract_yaml import MAX_BYTES, ContractYamlError, parse_yaml
from headway.governance.files import PUBLIC, read_regular, write_atomic

__all__ = [
    "Contract",
    "Duration",
    "LoadedContract",
    "contract_sha256",
    "load_contract",
    "overlay",
    "parse_contract",
    "save_contract",
]

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<key>key in )?\$(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")


@dataclass(frozen=True, kw_only=True)
class LoadedContract:
    """A contract that holds together, where it came from, and the hash that sign-offs cover."""

    contract: Contract
    sha256: str
    path: Path


def load_contract(path: Path, *, name: str | None = None) -> LoadedContract:
    """Return the contract of a file; with `name`, it must be the contract of that use case.

    Raises DefinitionError with file, field path and expected form.
    """
    file = "/".join(path.parts[-3:])
    try:
        data = read_regular(path, limit=MAX_BYTES)
    except OSError as error:
        raise DefinitionError(f"cannot be read: {error.strerror}", file=file, expected="a contract") from error
    except HeadwayError as error:
        raise DefinitionError(error.message, file=file, expected="a plain file of at most 64 KiB") from error
    contract = parse_contract(data, file=file)
    if name is not None and contract.name != name:
        raise DefinitionError(f"is the contract of {contract.name!r}", file=file, field="name", expected=name)
    return LoadedContract(contract=contract, sha256=contract_sha256(contract), path=path)


def parse_contract(data: bytes, *, file: str = "contract.yaml") -> Contract:
    """Return the contract of a YAML text; DefinitionError names file, field path and expected form."""
    try:
        value = parse_yaml(data)
    except ContractYamlError as error:
        raise DefinitionError(str(error), file=file, expected="plain YAML, each key once") from error
    if not isinstance(value, dict):
        raise DefinitionError("is not a mapping", file=file, expected="apiVersion, kind, name, …")
    try:
        contract = msgspec.convert(value, Contract, dec_hook=decode_duration)
    except msgspec.ValidationError as error:
        raise _explain(str(error), file, value) from error
    for field, what, expected in violations(contract, leaves(contract)):
        raise DefinitionError(what, file=file, field=field, expected=expected)
    return contract


def contract_builtins(contract: Contract) -> dict[str, Any]:
    """Return the contract as builtin types, durations as their shortest text."""
    value: dict[str, Any] = msgspec.to_builtins(contract, enc_hook=str)
    return value


def contract_sha256(contract: Contract) -> str:
    """Return the hash that sign-offs cover."""
    return sha256(canonical(contract_builtins(contract)))


def overlay(contract: Contract, *, ceiling_rps: float | None = None, limits: Limits | None = None) -> Contract:
    """Return a contract with a higher ceiling or other limits, for benchmarks: it needs sign-offs of its own."""
    changed = contract
    if ceiling_rps is not None:
        throughput = Throughput(ceiling_rps=float(ceiling_rps), beyond=contract.throughput.beyond)
        changed = msgspec.structs.replace(changed, throughput=throughput)
    if limits is not None:
        changed = msgspec.structs.replace(changed, limits=limits)
    return parse_contract(canonical(contract_builtins(changed)), file="overlay")


def save_contract(contract: Contract, path: Path) -> LoadedContract:
    """Write a contract (an overlay) as a file that loads back to the same hash."""
    write_atomic(path, canonical(contract_builtins(contract)) + b"\n", mode=PUBLIC)
    return load_contract(path)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (field path, typed value) of every leaf, in the order of the schema: `accuracy[0].floor`."""
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            place = f"{path}.{field.encode_name}" if path else field.encode_name
            yield from leaves(getattr(value, field.name), place)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, tuple) and any(isinstance(item, msgspec.Struct) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def decode_duration(kind: type, value: Any) -> Any:
    """Turn a text into a Duration, for msgspec."""
    if kind is not Duration or not isinstance(value, str):
        raise ValueError(f"{value!r} is not a duration; write a number and us, ms, s, m, h, d or w: 5s")
    try:
        return Duration.parse(value)
    except HeadwayError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    except OverflowError as error:
        raise ValueError(f"{value!r} is too long a duration") from error


def _explain(message: str, file: str, tree: Any) -> DefinitionError:
    """Turn msgspec's message into file, field path and expected form."""
    match = _PLACE.match(message)
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    path = _spelled(path.lstrip("."), what, tree)
    for pattern, verb in ((_UNKNOWN, "unknown field"), (_MISSING, "missing")):
        found = pattern.fullmatch(what)
        if found is None:
            continue
        name = found["name"]
        known = _fields_at(path)
        field = f"{path}.{name}" if path else name
        if verb == "missing":
            return DefinitionError("is missing", file=file, field=field, expected=_form(path, name))
        near = difflib.get_close_matches(name, known, n=1)
        expected = f"{near[0]!r}? known: " if near else "one of "
        return DefinitionError("is not a field", file=file, field=field, expected=expected + ", ".join(known))
    wrong, _, expected = what.partition("; ")
    if what.startswith("Expected "):
        wanted, _, got = what.removeprefix("Expected ").partition(", got ")
        wanted = _form(path) if "matching regex" in wanted else wanted
        return DefinitionError(
            f"is {got}" if got else "has the wrong form", file=file, field=path or None, expected=wanted
        )
    if what.startswith("Invalid enum value"):
        return DefinitionError(
            f"{what.removeprefix('Invalid enum value ')} is not allowed", file=file, field=path, expected=_form(path)
        )
    return DefinitionError(wrong, file=file, field=path or None, expected=expected or None)


def _spelled(path: str, what: str, tree: Any) -> str:
    """Return the path with `[...]` (msgspec's word for some value of a mapping) replaced by the key that is wrong."""
    before, found, after = path.partition("[...]")
    if not found:
        return path
    for part in before.split("."):
        tree = tree.get(part, {}) if isinstance(tree, dict) else {}
    keys = [key for key, item in tree.items() if f"'{item}'" in what] if isinstance(tree, dict) else []
    return before + (f".{keys[0]}" if keys else "") + after


def _type_at(path: str) -> Any:
    kind: Any = Contract
    for part in re.findall(r"[^.\[\]]+", re.sub(r"\[\d*\]", "", path)):
        kind = _inner(kind)
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
            continue
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return None
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        kind = fields.get(part)
    return kind


def _inner(kind: Any) -> Any:
    """Return the element type of `tuple[X, ...]`, else the type itself."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind


def _fields_at(path: str) -> list[str]:
    kind = _inner(_type_at(path)) if path else Contract
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [field.encode_name for field in msgspec.structs.fields(kind)]
    return []


def _form(path: str, name: str = "") -> str:
    """Say in words what a field expects."""
    kind = _inner(_type_at(f"{path}.{name}" if path and name else path or name))
    while typing.get_origin(kind) is typing.Annotated:
        for extra in typing.get_args(kind)[1:]:
            if isinstance(extra, msgspec.Meta) and extra.description:
                return extra.description
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "fields " + ", ".join(_fields_at(f"{path}.{name}" if path and name else path or name))
    if kind is Duration:
        return "a duration such as 5s, 24h, 30d"
    if isinstance(kind, types.GenericAlias):
        return str(kind)
    return {float: "a number", int: "a whole number", str: "text"}.get(kind, "a value")
