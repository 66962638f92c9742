"""The packed row of one (view, entity) of a Feast repository: header, one type code per feature, values.

Layout: [magic, 1 byte][schema, 8][event_ts, 8][created_ts, 8][CRC-32 of the rest, 4][a type code per feature][values].
Both times are microseconds, big-endian with the sign bit turned, so that 16 bytes compare as the pair does. A type code
is the field number of `feast.types.Value`, 0 for null. Numbers stand in their own width, lists of them after their
length, strings and bytes after theirs; what is neither is its serialized Value. The schema names the features: values
of a view stay readable when features are added to it or taken away.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from feast.protos.feast.types.Value_pb2 import Value

from headway.core.errors import CorruptState

MAGIC = b"\xd2"
HEADER = struct.Struct(">c8sQQI")
SCHEMA = slice(1, 9)
_SIGN = 1 << 63
_SIZE = struct.Struct("<I")
_FIELDS = {field.name: field for field in Value.DESCRIPTOR.fields}
_NAMES = {field.number: name for name, field in _FIELDS.items()}
_NUMBERS = {
    "int32_val": "i",
    "int64_val": "q",
    "double_val": "d",
    "float_val": "f",
    "bool_val": "?",
    "unix_timestamp_val": "q",
}
_TEXTS = ("string_val", "bytes_val")
_FORMATS = {_FIELDS[name].number: letter for name, letter in _NUMBERS.items()}
_LISTS = {_FIELDS[f"{name.removesuffix('_val')}_list_val"].number: letter for name, letter in _NUMBERS.items()}
_TEXT_LISTS = tuple(_FIELDS[f"{name.removesuffix('_val')}_list_val"].number for name in _TEXTS)
_STRING, _BYTES = (_FIELDS[name].number for name in _TEXTS)
_PLANS: dict[bytes, tuple[struct.Struct, tuple[str | None, ...]] | None] = {}


def schema_id(names: Sequence[str]) -> bytes:
    """Return 8 bytes that stand for these features in this order."""
    return hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest()


def pack(names: Sequence[str], values: Mapping[str, Any], event_ts: int, created_ts: int) -> bytes:
    """Return the stored value of a row; features that `values` lacks are null. Times in UTC microseconds."""
    codes = bytearray(len(names))
    parts: list[bytes] = []
    for i, name in enumerate(names):
        value = values.get(name)
        kind = None if value is None else value.WhichOneof("val")
        if kind is not None:
            codes[i] = _FIELDS[kind].number
            parts.append(_packed(codes[i], kind, value))
    body = bytes(codes) + b"".join(parts)
    return HEADER.pack(MAGIC, schema_id(names), event_ts + _SIGN, created_ts + _SIGN, zlib.crc32(body)) + body


def event_time(value: bytes, key: bytes) -> int:
    """Return a row's event time, UTC microseconds; CorruptState where the value is not `pack`'s."""
    if len(value) < HEADER.size:
        raise _corrupt(key)
    magic, _, event, _, checksum = HEADER.unpack_from(value)
    if magic != MAGIC or zlib.crc32(memoryview(value)[HEADER.size :]) != checksum:
        raise _corrupt(key)
    return int(event) - _SIGN


def unpack(names: Sequence[str], value: bytes) -> dict[str, Any]:
    """Return feature → Value of a row whose schema is `names`; nulls are empty Values."""
    at = HEADER.size + len(names)
    codes = value[HEADER.size : at]
    plan = _plan(codes)
    if plan is not None:
        numbers = iter(plan[0].unpack_from(value, at))
        return {
            name: Value() if kind is None else Value(**{kind: next(numbers)})
            for name, kind in zip(names, plan[1], strict=True)
        }
    row = {}
    for name, code in zip(names, codes, strict=True):
        row[name], at = (Value(), at) if code == 0 else _unpacked(code, value, at)
    return row


def _plan(codes: bytes) -> tuple[struct.Struct, tuple[str | None, ...]] | None:
    """Return how rows of nothing but numbers and nulls are read at once; None: they are not such."""
    if codes not in _PLANS:
        if len(_PLANS) >= 1_024:
            _PLANS.clear()
        plain = all(code == 0 or code in _FORMATS for code in codes)
        letters = "<" + "".join(_FORMATS.get(code, "") for code in codes)
        kinds = tuple(_NAMES.get(code) for code in codes)
        _PLANS[codes] = (struct.Struct(letters), kinds) if plain else None
    return _PLANS[codes]


def _packed(code: int, kind: str, value: Any) -> bytes:
    if code in _FORMATS:
        return struct.pack(f"<{_FORMATS[code]}", getattr(value, kind))
    if code == _STRING:
        return _sized(value.string_val.encode())
    if code == _BYTES:
        return _sized(value.bytes_val)
    if code in _LISTS:
        items = getattr(value, kind).val
        return _SIZE.pack(len(items)) + struct.pack(f"<{len(items)}{_LISTS[code]}", *items)
    if code in _TEXT_LISTS:
        texts = getattr(value, kind).val
        encoded = [text.encode() if isinstance(text, str) else text for text in texts]
        return _SIZE.pack(len(encoded)) + b"".join(_sized(text) for text in encoded)
    return _sized(value.SerializeToString())


def _unpacked(code: int, value: bytes, at: int) -> tuple[Any, int]:
    """Return the Value at an offset, and where the next begins."""
    kind = _NAMES[code]
    if code in _FORMATS:
        form = struct.Struct(f"<{_FORMATS[code]}")
        return Value(**{kind: form.unpack_from(value, at)[0]}), at + form.size
    (size,) = _SIZE.unpack_from(value, at)
    at += _SIZE.size
    if code in _LISTS:
        form = struct.Struct(f"<{size}{_LISTS[code]}")
        made = Value()
        _listed(made, kind, form.unpack_from(value, at))
        return made, at + form.size
    if code in _TEXT_LISTS:
        texts: list[Any] = []
        read: Callable[[bytes], Any] = bytes.decode if kind.startswith("string") else bytes
        for _ in range(size):
            (width,) = _SIZE.unpack_from(value, at)
            at += _SIZE.size
            texts.append(read(value[at : at + width]))
            at += width
        made = Value()
        _listed(made, kind, texts)
        return made, at
    raw = value[at : at + size]
    if code == _STRING:
        return Value(string_val=raw.decode()), at + size
    if code == _BYTES:
        return Value(bytes_val=raw), at + size
    return Value.FromString(raw), at + size


def _listed(made: Any, kind: str, items: Sequence[Any]) -> None:
    target = getattr(made, kind)
    target.SetInParent()  # an empty list is a list, not null
    target.val.extend(items)


def _sized(raw: bytes) -> bytes:
    return _SIZE.pack(len(raw)) + raw


def _corrupt(key: bytes) -> CorruptState:
    return CorruptState(
        f"the key {key!r} holds a value that PackedRedisOnlineStore did not write",
        hint="delete it and materialize the view again",
    )
