"""From pinned snapshots to the rows of a training: labels known by then, features as they were at each decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME, format_time
from headway.core.types import Int64, Matrix, Principal
from headway.features.historical import ROW_ID, training_set
from headway.features.labels import in_order, labelled_rows, pin, to_matrix
from headway.features.lake.pins import TrainingPins
from headway.features.lake.reader import LakeReader
from headway.models.input_schema import InputSchema, describe_column, describe_input, merge_schemas
from headway.training.definitions import TrainingJob

if TYPE_CHECKING:
    import ray.data

SPLIT = "split"
TRAIN, EVALUATE = 0, 1
_SCHEMA_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation rows in order, and what the training rows looked like."""

    matrix: Matrix
    """float32 [n, k], in the order of the service's features."""
    label: Matrix
    """float32 [n]."""
    event_time: Int64
    group: npt.NDArray[Any] | None
    """Key of each row for card precision."""
    schema: InputSchema
    """Ranges and nulls of the training rows."""
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Others of the spine that judging needs [n]."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Materialised rows of both ranges; the column `split` says which."""

    job: TrainingJob
    dataset: ray.data.Dataset
    snapshots: Mapping[str, int]
    rows: int
    """Training rows."""
    evaluation_rows: int

    def train(self) -> ray.data.Dataset:
        """Return the training rows, filtered block by block as the worker reads them."""
        return self.dataset.map_batches(training_rows, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)

    def blocks(self) -> Iterable[pa.Table]:
        """Return the rows of both ranges, block by block, in this process."""
        blocks: Iterable[pa.Table] = self.dataset.iter_batches(batch_format="pyarrow", batch_size=None)
        return blocks

    def evaluation(self) -> Evaluation:
        """Return the evaluation rows in this process."""
        return collect(self.blocks(), self.job)


def pin_snapshots(
    job: TrainingJob, reader: LakeReader, pins: TrainingPins | None = None, run: str = ""
) -> dict[str, int]:
    """Return table → snapshot id of every table that the training reads, so that it can be repeated.

    With `pins` they do not expire while `run` goes on.
    """

    def newest() -> dict[str, int]:
        return pin(reader, job.spine, *(view.source for view in job.service.stored))

    return newest() if pins is None else pins.hold_newest(run, newest)


def read_spine(
    job: TrainingJob, reader: LakeReader, *, as_of: int, principal: Principal, snapshots: Mapping[str, int]
) -> pa.Table:
    """Return the labelled decisions of both ranges known at `as_of`, in order of time and id, with `split`.

    Raises DefinitionError for a column that the spine lacks, InvalidValue for a range without rows.
    """
    (train_from, train_to), (evaluate_from, evaluate_to) = job.ranges(as_of)
    table = labelled_rows(
        job.spine,
        job.service,
        [job.label, *_beside(job)],
        reader,
        principal,
        principal.purpose,
        event_time=(train_from, evaluate_to),
        known_by=as_of,
        snapshots=snapshots,
        field="job.spine",
    )
    times = table[EVENT_TIME].to_numpy()
    training = (times >= train_from) & (times < train_to)
    evaluation = (times >= evaluate_from) & (times < evaluate_to)
    for name, there, start, end in (
        ("train", training, train_from, train_to),
        ("evaluate", evaluation, evaluate_from, evaluate_to),
    ):
        if not there.any():
            raise InvalidValue(
                f"job.{name}",
                f"no labelled rows of {job.spine.name} in [{format_time(start)}, {format_time(end)}) "
                f"known by {format_time(as_of)}",
                hint="load history first, or train at a later time",
            )
    split = pa.array(np.where(evaluation, EVALUATE, TRAIN).astype(np.int8))
    return in_order(table.append_column(SPLIT, split).filter(pa.array(training | evaluation)), job.spine)


def build(
    job: TrainingJob, reader: LakeReader, *, as_of: int, principal: Principal, snapshots: Mapping[str, int]
) -> TrainingData:
    """Join the spine with the features as known at each decision, and keep only what training needs."""
    spine = read_spine(job, reader, as_of=as_of, principal=principal, snapshots=snapshots)
    evaluation_rows = int(pc.sum(spine[SPLIT]).as_py())
    joined = training_set(spine, job.service, reader, principal, principal.purpose, snapshots=snapshots)
    extra = [job.label, EVENT_TIME, SPLIT, ROW_ID, *_beside(job)]
    columns = list(dict.fromkeys([*job.service.features, *request_only(job), *extra]))
    return TrainingData(
        job=job,
        dataset=joined.select_columns(columns).materialize(),
        snapshots=dict(snapshots),
        rows=len(spine) - evaluation_rows,
        evaluation_rows=evaluation_rows,
    )


def _beside(job: TrainingJob) -> list[str]:
    """Return the columns of the spine that are neither label nor feature: group, weight, and what judging needs."""
    named = (job.group, getattr(job.recipe, "weight", None), *job.judged_columns)
    return list(dict.fromkeys(name for name in named if name and name != job.label))


def request_only(job: TrainingJob) -> dict[str, str]:
    """Return the request columns that are no features themselves, and their dtypes."""
    service = job.service
    return {
        name: dtype for name, dtype in service.request.items() if name != EVENT_TIME and name not in service.features
    }


def training_rows(block: pa.Table) -> pa.Table:
    """Return the training rows of a block."""
    return block.filter(pc.equal(block[SPLIT], TRAIN))


def collect(blocks: Iterable[pa.Table], job: TrainingJob) -> Evaluation:
    """Return the evaluation rows of all blocks in order of `row_id`, and the schema of the others."""
    features = job.service.features
    schema: InputSchema | None = None
    kept = []
    for block in blocks:
        kept.append(block.filter(pc.equal(block[SPLIT], EVALUATE)))
        others = training_rows(block)
        for start in range(0, len(others), _SCHEMA_ROWS):
            seen = _described(others.slice(start, _SCHEMA_ROWS), job)
            schema = seen if schema is None else merge_schemas(schema, seen)
    table = pa.concat_tables(kept).sort_by(ROW_ID)
    return Evaluation(
        matrix=to_matrix(table, features),
        label=table[job.label].to_numpy().astype(np.float32),
        event_time=table[EVENT_TIME].to_numpy(),
        group=None if job.group is None else table[job.group].to_numpy(),
        schema=schema or describe_input(features, np.empty((0, len(features)), np.float32)),
        columns={name: table[name].to_numpy() for name in job.judged_columns},
    )


def _described(rows: pa.Table, job: TrainingJob) -> InputSchema:
    """Return what some training rows show."""
    schema = describe_input(job.service.features, to_matrix(rows, job.service.features))
    others = tuple(describe_column(name, dtype, rows[name]) for name, dtype in request_only(job).items())
    return InputSchema(features=schema.features, request=others)
