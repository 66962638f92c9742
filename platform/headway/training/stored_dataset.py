"""A training's rows as files in order of `row_id`, and their hash, which knows values and order but no blocks.

Training reads these files whether they were made now or long ago, so that a run which was resumed or repeated gives the
trainer the same blocks in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headway.core.canonical import canonical, sha256
from headway.core.errors import PlatformError
from headway.features.historical import ROW_ID
from headway.training.dataset import TrainingData
from headway.training.definitions import TrainingJob

if TYPE_CHECKING:
    import ray.data

FACTS = "dataset.json"


class DatasetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of stored rows."""

    sha256: str
    rows: int
    """Training rows."""
    evaluation_rows: int


def store(data: TrainingData, folder: Path) -> DatasetFacts:
    """Write the rows into an empty folder and return what they are."""
    for block in data.dataset.iter_batches(batch_format="pyarrow", batch_size=None):
        if len(block):
            pq.write_table(block, folder / f"{pc.min(block[ROW_ID]).as_py():015d}.parquet", compression="lz4")
    facts = DatasetFacts(sha256=dataset_sha256(blocks(folder)), rows=data.rows, evaluation_rows=data.evaluation_rows)
    (folder / FACTS).write_bytes(msgspec.json.encode(facts))
    return facts


def facts_of(folder: Path) -> DatasetFacts:
    """Return what is known of the rows in a folder."""
    return msgspec.json.decode((folder / FACTS).read_bytes(), type=DatasetFacts)


def load(folder: Path, job: TrainingJob, snapshots: Mapping[str, int]) -> TrainingData:
    """Return stored rows as a Ray dataset, one block per file in order; one file at a time passes this process."""
    import ray

    facts = facts_of(folder)
    return TrainingData(
        job=job,
        dataset=_dataset(ray.put(_read(path)) for path in files(folder)),
        snapshots=dict(snapshots),
        rows=facts.rows,
        evaluation_rows=facts.evaluation_rows,
    )


def blocks(folder: Path) -> Iterator[pa.Table]:
    """Yield the rows of both ranges in order, one file at a time."""
    return map(_read, files(folder))


def files(folder: Path) -> list[Path]:
    """Return the files of rows, in order of `row_id`."""
    return sorted(folder.glob("*.parquet"))


def dataset_sha256(blocks: Iterable[pa.Table]) -> str:
    """Return the hash of names, types, values and nulls of rows given in order of `row_id`, however they are cut.

    PlatformError where the rows are in no order.
    """
    columns: dict[str, tuple[str, Any, Any]] = {}
    last = -1
    for block in blocks:
        ids = block[ROW_ID].to_numpy()
        if len(ids) and (ids[0] <= last or (np.diff(ids) <= 0).any()):
            raise PlatformError("the rows of the data set are in no order", hint="train again")
        last = int(ids[-1]) if len(ids) else last
        for name in block.column_names:
            kind = str(block.schema.field(name).type)
            _, values, valid = columns.setdefault(name, (kind, hashlib.sha256(), hashlib.sha256()))
            column = block[name].combine_chunks()
            valid.update(pc.is_valid(column).to_numpy(zero_copy_only=False).tobytes())
            for part in _bytes(column):
                values.update(part)
    return sha256(canonical({name: [kind, v.hexdigest(), n.hexdigest()] for name, (kind, v, n) in columns.items()}))


def _bytes(column: pa.Array) -> Iterator[bytes]:
    """Yield what decides equality of a column, the same for any cut into blocks."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        yield np.ascontiguousarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False)).tobytes()
        return
    for value in column.to_pylist():
        text = repr(value).encode()
        yield len(text).to_bytes(8, "little") + text


def _read(path: Path) -> pa.Table:
    return pq.read_table(path, memory_map=False)


def _dataset(blocks: Iterable[Any]) -> ray.data.Dataset:
    import ray.data

    return ray.data.from_arrow_refs(list(blocks))
