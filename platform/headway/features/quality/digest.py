"""The identity of a batch's rows: equal for equal values in equal order, however they are chunked or stored."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.features.arrow import whole


def rows_sha256(rows: pa.Table) -> str:
    """Return the SHA-256 of a table's columns by name: types, which values are there, and the values."""
    digest = hashlib.sha256()
    for name in sorted(rows.column_names):
        column = whole(rows[name])
        there = pc.is_valid(column).to_numpy(zero_copy_only=False)
        digest.update(f"{name}:{column.type}:{len(column)}\n".encode())
        digest.update(np.packbits(there).tobytes())
        values = column.drop_null()
        if pa.types.is_string(column.type):
            texts = [text.encode() for text in values.to_pylist()]
            digest.update(np.array([len(text) for text in texts], "<i8").tobytes())
            digest.update(b"".join(texts))
        else:
            digest.update(values.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()
