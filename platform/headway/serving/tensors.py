"""Tensors of the Open Inference Protocol: which datatypes carry a column, and the raw bytes of the binary extension.

Raw data are little-endian and row-major; each BYTES element follows its length in four bytes
(open-inference-protocol, `inference_rest.md` and its binary tensor data extension).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from headway.core.errors import InvalidValue

_NUMPY = {
    "BOOL": "?",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "FP32": "<f4",
    "FP64": "<f8",
}
_WHOLE = ("INT64", "INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8")
DATATYPES = {
    "int64": _WHOLE,
    "float32": ("FP32", "FP64", *_WHOLE),
    "float64": ("FP64", "FP32", *_WHOLE),
    "string": ("BYTES",),
    "bool": ("BOOL",),
}
"""Column dtype → datatypes that can carry it; the first is the declared one."""


def from_raw(datatype: str, raw: memoryview, count: int, place: str, size_place: str) -> list[Any]:
    """Return `count` values as Python's own; InvalidValue names the element at `place`, or `size_place`."""
    if datatype == "BYTES":
        return _texts(raw, count, place, size_place)
    dtype = np.dtype(_NUMPY[datatype])
    if len(raw) != count * dtype.itemsize:
        raise InvalidValue(size_place, f"{len(raw)} bytes, {count} values of {datatype} are {count * dtype.itemsize}")
    if datatype == "BOOL":
        return [byte != 0 for byte in raw]
    values = np.frombuffer(raw, dtype)
    if dtype.kind == "f" and not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidValue(f"{place}[{index}]", "not a finite number", code="not_finite")
    return list(values.tolist())


def require_finite(values: Sequence[Any], place: str) -> None:
    """Raise InvalidValue where one of the values is NaN or infinite."""
    for index, value in enumerate(values):
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidValue(f"{place}[{index}]", "not a finite number", code="not_finite")


def to_raw(datatype: str, values: Sequence[Any]) -> bytes:
    """Return the values' bytes."""
    if datatype == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))
    return np.array(values, _NUMPY[datatype]).tobytes()


def _texts(raw: memoryview, count: int, place: str, size_place: str) -> list[str]:
    found, at = [], 0
    for index in range(count):
        if at + 4 > len(raw):
            raise InvalidValue(f"{place}[{index}]", "missing: the tensor's bytes end before")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise InvalidValue(f"{place}[{index}]", f"{size} bytes, the tensor's bytes end before")
        try:
            found.append(str(raw[at : at + size], "utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidValue(f"{place}[{index}]", f"not UTF-8: {error.reason}") from None
        at += size
    if at != len(raw):
        raise InvalidValue(size_place, f"{len(raw) - at} bytes after the last value")
    return found
