"""What is wrong with training rows before a model hides it: labels of one class, infinities, features that leak.

A leak is a feature that knows the label: its column equals it, or alone ranks the training rows better than any honest
feature does, or comes from a source that claims to know the label before the spine says it was known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import rankdata

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME, KNOWN_TIME, format_duration
from headway.core.types import Matrix, Principal
from headway.features.definitions import EventSource, RowView
from headway.features.historical import ROW_ID
from headway.features.labels import to_matrix
from headway.features.lake.reader import LakeReader
from headway.training.dataset import TrainingData
from headway.training.definitions import OnnxImport, TrainingJob, XGBoostRecipe

SAMPLE = 100_000
"""Rows of each class that the ranking of a feature is measured on."""
_ENOUGH = 50
"""Rows of each class below which a perfect ranking may be chance."""
_SHOWN = 10
_EARLY = 1.0
"""Percentile of label delays that are compared: a few early labels are no leak."""


@dataclass
class _Seen:
    """What the columns held so far."""

    features: tuple[str, ...]
    task: str
    """binary | regression | other."""
    step: int
    rows: int = 0
    low: Matrix = field(init=False)
    high: Matrix = field(init=False)
    label_low: float = np.inf
    label_high: float = -np.inf
    sample: list[Matrix] = field(default_factory=list)
    labels: list[Matrix] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.low = np.full(len(self.features), np.inf, dtype=np.float32)
        self.high = np.full(len(self.features), -np.inf, dtype=np.float32)

    def add(self, block: pa.Table, label: str) -> None:
        """Take in a block; InvalidValue names the column that no model can be fitted on."""
        if not len(block):
            return
        labels = _labels(block[label], label, self.task)
        matrix = to_matrix(block, self.features)
        infinite = np.isinf(matrix).any(axis=0)
        if infinite.any():
            name = self.features[int(np.argmax(infinite))]
            raise InvalidValue(name, "holds an infinite value", hint="bound the transformation that makes it")
        self.rows += len(labels)
        np.fmin(self.low, np.fmin.reduce(matrix, axis=0), out=self.low)
        np.fmax(self.high, np.fmax.reduce(matrix, axis=0), out=self.high)
        self.label_low, self.label_high = min(self.label_low, labels.min()), max(self.label_high, labels.max())
        kept = block[ROW_ID].to_numpy() % self.step == 0
        if self.task == "binary":
            kept |= labels == 1
        self.sample.append(matrix[kept])
        self.labels.append(labels[kept])


def _labels(column: pa.ChunkedArray, name: str, task: str) -> Matrix:
    if column.null_count:
        raise InvalidValue(name, f"{column.null_count} labels are null", hint="a label must be known to be trained on")
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise InvalidValue(name, f"{column.type} labels, expected numbers", hint="code the classes as 0 and 1")
    labels = np.asarray(column.to_numpy(), dtype=np.float32)
    if not np.isfinite(labels).all():
        raise InvalidValue(name, "holds NaN or infinite labels", hint="a label must be known to be trained on")
    if task == "binary" and not np.isin(labels, (0, 1)).all():
        raise InvalidValue(name, "holds other labels than 0 and 1", hint="a regression has another objective")
    return labels


def audit_training(data: TrainingData, reader: LakeReader, principal: Principal, *, as_of: int) -> tuple[str, ...]:
    """Audit sources and rows; return warnings, raise InvalidValue for what must not be trained on."""
    audit_sources(data.job, reader, principal, data.snapshots, as_of=as_of)
    blocks = data.train().iter_batches(batch_format="pyarrow", batch_size=None)
    return audit_rows(blocks, data.job, rows=data.rows)


def audit_rows(blocks: Iterable[pa.Table], job: TrainingJob, *, rows: int) -> tuple[str, ...]:
    """Return warnings about training rows, each naming its features.

    Args:
        blocks: With the features, the label and `row_id`.
        job: Says what is label and feature.
        rows: About how many there are.

    Raises InvalidValue for no rows, labels of one class or none, infinities, and features that leak.
    """
    seen = _Seen(features=job.service.features, task=_task(job), step=max(1, rows // SAMPLE))
    for block in blocks:
        seen.add(block, job.label)
    if seen.rows == 0:
        raise InvalidValue("train", "no rows in the training range", hint="load history first, or widen `train`")
    if seen.label_low == seen.label_high:
        raise InvalidValue(
            job.label,
            f"all {seen.rows:,} training rows have the label {seen.label_low:g}",
            hint="widen `train`: a model needs different labels",
        )
    empty = [name for name, low in zip(seen.features, seen.low, strict=True) if np.isinf(low)]
    same = [name for name, low, high in zip(seen.features, seen.low, seen.high, strict=True) if low == high]
    if seen.task != "other":
        _refuse_leaks(seen, job)
    hint = "leave them out of the service's `features` if that is not meant to pass"
    found = (("only missing values", empty), ("one value only", same))
    return tuple(f"{what}: {_listed(names)} ({hint})" for what, names in found if names)


def _task(job: TrainingJob) -> str:
    recipe: object = job.recipe
    if isinstance(recipe, XGBoostRecipe | OnnxImport):
        return "regression" if recipe.regression else "binary"
    return "other"


def _refuse_leaks(seen: _Seen, job: TrainingJob) -> None:
    matrix, labels = np.concatenate(seen.sample), np.concatenate(seen.labels)
    smaller = len(labels) if seen.task == "regression" else min((labels == 1).sum(), (labels == 0).sum())
    found = {}
    for index, name in enumerate(seen.features):
        column = matrix[:, index]
        if np.array_equal(column, labels):
            found[name] = "equals the label"
            continue
        if smaller < _ENOUGH:
            continue
        strength = separation(column, labels, regression=seen.task == "regression")
        if strength >= job.leak_bound:
            found[name] = f"alone ranks the rows with {strength:.4f}"
    if found:
        first = next(iter(found))
        raise InvalidValue(
            first,
            f"leaks the label {job.label!r}: " + "; ".join(f"{name} {why}" for name, why in found.items()),
            hint=f"nothing honest ranks at {job.leak_bound:g}: take it out of the service, give its source "
            "the true known_time, or raise `leak_bound`",
            code="leak",
        )


def separation(column: Matrix, labels: Matrix, *, regression: bool = False) -> float:
    """Return how well a column alone ranks the labels, up or down: ROC AUC, or |Spearman's correlation|.

    Missing values count once as the smallest and once as the largest, since being missing may tell as much.
    """
    missing = np.isnan(column)
    best = 0.0
    for stand_in in (-np.inf, np.inf) if missing.any() else (0.0,):
        ranks = rankdata(np.where(missing, np.float32(stand_in), column))
        if regression:
            strength = _correlation(ranks, rankdata(labels))
        else:
            positive = labels == 1
            count = float(positive.sum())
            area = (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count))
            strength = max(area, 1 - area)
        best = max(best, float(strength))
    return best


def _correlation(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    one, two = first - first.mean(), second - second.mean()
    size = float(np.sqrt((one @ one) * (two @ two)))
    return 0.0 if size == 0 else abs(float(one @ two)) / size


def audit_sources(
    job: TrainingJob, reader: LakeReader, principal: Principal, snapshots: Mapping[str, int], *, as_of: int
) -> None:
    """Raise InvalidValue for features of the label itself whose source knows it before the spine does.

    A source without the true known_time makes the join give out labels that nobody had at the decision.
    """
    _, evaluation = job.ranges(as_of)

    def delay(source: EventSource) -> int | None:
        rows = reader.scan(
            source, principal, principal.purpose, columns=[EVENT_TIME, KNOWN_TIME], event_time=evaluation,
            snapshot_id=snapshots[source.table],
        )  # fmt: skip
        late = rows[KNOWN_TIME].to_numpy() - rows[EVENT_TIME].to_numpy()
        return int(np.percentile(late, _EARLY)) if len(late) else None

    for source, offset, features in _of_label(job):
        theirs, ours = delay(source), delay(job.spine)
        if theirs is not None and ours is not None and theirs + offset < ours:
            raise InvalidValue(
                features[0],
                f"leaks the label {job.label!r}: {_listed(features)} of {source.name!r} know it "
                f"{format_duration(theirs + offset)} after the event, {job.spine.name!r} {format_duration(ours)} later",
                hint=f"give the rows of {source.name!r} the known_time at which their label was known",
                code="leak",
            )


def _of_label(job: TrainingJob) -> Iterator[tuple[EventSource, int, list[str]]]:
    """Yield (source, offset of the windows, features) of what is made of a column of the label's name elsewhere."""
    for view in job.service.stored:
        if view.source.table == job.spine.table:
            continue
        if isinstance(view, RowView):
            made = [(name, 0) for name, column in zip(view.features, view.columns, strict=True) if column == job.label]
        else:
            pairs = zip(view.features, view.aggregates, strict=True)
            made = [(name, aggregate.offset) for name, aggregate in pairs if aggregate.column == job.label]
        for offset in sorted({offset for _, offset in made}):
            yield view.source, offset, [name for name, other in made if other == offset]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
