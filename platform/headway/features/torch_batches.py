"""Rows as batches of tensors, parted between the workers of a DataLoader.

Torch is the caller's: nothing else of the platform needs it here, so it is looked for when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.errors import InvalidValue
from headway.core.types import Matrix
from headway.features.labels import to_matrix


def torch_dataset(rows: pa.Table, features: Sequence[str], label: str, batch_size: int) -> Any:
    """Return an IterableDataset of (features [n, k], label [n]) tensors; InvalidValue where torch is not installed."""
    try:
        torch = importlib.import_module("torch")
        data = importlib.import_module("torch.utils.data")
    except ImportError:
        raise InvalidValue(
            "to_torch", "torch is not installed", hint="pip install torch, or use to_arrow() or dataset()"
        ) from None
    matrix, target = arrays(rows, features, label)
    require_size(batch_size)

    class Rows(data.IterableDataset):  # type: ignore[misc, name-defined]  # torch is not typed here
        """Batches in order; a worker has every n-th."""

        def __iter__(self) -> Iterator[tuple[Any, Any]]:
            """Yield this worker's batches."""
            worker = data.get_worker_info()
            place, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
            for part in parts(len(matrix), batch_size, place, workers):
                yield torch.from_numpy(matrix[part]), torch.from_numpy(target[part])

        def __len__(self) -> int:
            """Return the batches of all workers."""
            return (len(matrix) + batch_size - 1) // batch_size

    return Rows()


def arrays(rows: pa.Table, features: Sequence[str], label: str) -> tuple[Matrix, Matrix]:
    """Return float32 [n, k] and [n]; InvalidValue names a feature that is no number."""
    for name in features:
        if not _numeric(rows.schema.field(name).type):
            raise InvalidValue(
                name, "is no number, and a tensor holds nothing else", hint="use to_arrow() and encode it"
            )
    return to_matrix(rows, features), rows[label].to_numpy().astype(np.float32)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def parts(rows: int, size: int, place: int, workers: int) -> Iterator[slice]:
    """Yield the slices of one of several workers: together they have each row once."""
    for begin in range(place * size, rows, workers * size):
        yield slice(begin, min(begin + size, rows))


def require_size(batch_size: int) -> None:
    """Raise InvalidValue where a batch would hold nothing."""
    if batch_size < 1:
        raise InvalidValue("batch_size", f"{batch_size}", hint="1 or more")
