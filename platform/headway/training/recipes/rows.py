"""The rows of one worker, in the order of `row_id`, as batches that XGBoost quantises one after the other.

Blocks come packed from the tasks that filter them and stay where they are, in shared memory; a batch is gathered from
all of them by row id. So a worker holds its quantised matrix and one batch, never a second copy of its rows; and the
trees depend on the rows alone, not on how many blocks they came in or in which order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME
from headway.core.types import Int64, Matrix
from headway.features.historical import ROW_ID

if TYPE_CHECKING:
    import ray.data

BATCH = 1 << 17
_MATRIX, _LABEL, _WEIGHT = "matrix", "label", "weight"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns of a row are what."""

    features: tuple[str, ...]
    label: str
    weight: str | None = None
    class_weights: Mapping[int, float] = {}
    categorical: tuple[str, ...] = ()
    cut: int | None = None
    """Rows with event_time from here on are validation rows, UTC microseconds."""

    @property
    def types(self) -> list[str]:
        """What XGBoost calls the features' types."""
        return ["c" if name in self.categorical else "q" for name in self.features]


def packed(
    rows: ray.data.Dataset, shape: Shape, *, validation: bool = False, part: int = 0, of: int = 1
) -> ray.data.Dataset:
    """Return the rows before the cut, or from it on, whose id modulo `of` is `part`, in the form that `Rows` reads."""
    function = partial(pack, shape=shape, validation=validation, part=part, of=of)
    return rows.map_batches(function, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)


def pack(block: pa.Table, *, shape: Shape, validation: bool = False, part: int = 0, of: int = 1) -> pa.Table:
    """Return `row_id`, label, weight and one float32 list per row, in order of `row_id`; nulls become NaN."""
    ids = block[ROW_ID].to_numpy()
    chosen = ids % of == part
    if shape.cut is not None:
        chosen &= (block[EVENT_TIME].to_numpy() >= shape.cut) == validation
    block = block.filter(pa.array(chosen)).sort_by(ROW_ID)
    matrix = np.empty((len(block), len(shape.features)), dtype=np.float32)
    for index, name in enumerate(shape.features):
        matrix[:, index] = block[name].to_numpy()
    flat = pa.array(matrix.reshape(-1))
    return pa.table(
        {
            ROW_ID: block[ROW_ID].combine_chunks().cast(pa.int64()),
            _LABEL: pc.fill_null(block[shape.label].cast(pa.float32()), float("nan")).combine_chunks(),
            _WEIGHT: pa.array(_weights(block, shape)),
            _MATRIX: pa.FixedSizeListArray.from_arrays(flat, len(shape.features)),
        }
    )


def _weights(block: pa.Table, shape: Shape) -> Matrix:
    weight = np.ones(len(block), dtype=np.float32)
    if shape.weight is not None:
        weight = block[shape.weight].to_numpy().astype(np.float32)
    if shape.class_weights:
        labels = block[shape.label].to_numpy()
        for name, factor in shape.class_weights.items():
            weight = np.where(labels == name, weight * np.float32(factor), weight)
    return weight


@dataclass(frozen=True)
class _Block:
    ids: Int64
    label: Matrix
    weight: Matrix
    matrix: Matrix


class Rows:
    """Packed blocks, read in order."""

    def __init__(self, tables: Iterable[pa.Table], shape: Shape) -> None:
        """Keep views of the blocks; InvalidValue for no rows, a null label, or a weight that is none."""
        self.shape = shape
        self._blocks = [_views(table, len(shape.features)) for table in tables if len(table)]
        if not self._blocks:
            raise InvalidValue("train", "no rows in the training range", hint="load history first, or widen `train`")
        if np.isnan(self.labels).any():
            raise InvalidValue(shape.label, "holds nulls", hint="a label must be known to be trained on")
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise InvalidValue(shape.weight or "weight", "holds nulls, infinities or negative numbers")

    def __len__(self) -> int:
        return len(self._order[0])

    @cached_property
    def _order(self) -> tuple[Int64, Int64]:
        """Return (ids in order, where each stands among the blocks end to end)."""
        ids = np.concatenate([block.ids for block in self._blocks])
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    @cached_property
    def labels(self) -> Matrix:
        """Labels in order, float32 [n]."""
        return np.concatenate([block.label for block in self._blocks])[self._order[1]]

    @cached_property
    def weights(self) -> Matrix:
        """Weights in order, float32 [n]."""
        return np.concatenate([block.weight for block in self._blocks])[self._order[1]]

    def batches(self, size: int = BATCH) -> Iterator[tuple[Matrix, slice]]:
        """Yield (float32 [b, k], which rows) in order."""
        ids, _ = self._order
        for start in range(0, len(ids), size):
            stop = min(start + size, len(ids))
            parts, places = [], []
            for block in self._blocks:
                low, high = np.searchsorted(block.ids, (ids[start], ids[stop - 1] + 1))
                parts.append(block.matrix[low:high])
                places.append(block.ids[low:high])
            place = np.argsort(np.concatenate(places), kind="stable")
            yield np.concatenate(parts)[place], slice(start, stop)

    def matrix(self) -> Matrix:
        """Return all rows at once, float32 [n, k]: for small parts."""
        return np.concatenate([matrix for matrix, _ in self.batches()])

    def quantised(self, *, threads: int, max_bin: int | None = None, like: Any = None) -> Any:
        """Return a QuantileDMatrix, with the bins of `like` where it is given."""
        import xgboost

        rows = self

        class Batches(xgboost.DataIter):  # type: ignore[misc]  # untyped base that xgboost insists on
            """Hands out batches as often as XGBoost asks."""

            def reset(self) -> None:
                """Begin again."""
                self._left = rows.batches()

            def next(self, input_data: Any) -> bool:
                """Hand out the next batch."""
                matrix, where = next(self._left, (None, slice(0)))
                if matrix is None:
                    return False
                input_data(
                    data=matrix,
                    label=rows.labels[where],
                    weight=rows.weights[where] if rows.weighted else None,
                    feature_types=rows.shape.types,
                )
                return True

        return xgboost.QuantileDMatrix(
            Batches(), nthread=threads, max_bin=max_bin, ref=like, enable_categorical=bool(self.shape.categorical)
        )

    @cached_property
    def weighted(self) -> bool:
        """Whether rows differ in weight; XGBoost is quicker without."""
        return self.shape.weight is not None or bool(self.shape.class_weights)


def _views(table: pa.Table, features: int) -> _Block:
    table = table.combine_chunks()
    (column,) = table[_MATRIX].chunks
    return _Block(
        ids=table[ROW_ID].to_numpy(),
        label=table[_LABEL].to_numpy(),
        weight=table[_WEIGHT].to_numpy(),
        matrix=column.flatten().to_numpy(zero_copy_only=True).reshape(-1, features),
    )
