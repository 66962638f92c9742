"""The poisoning gate: no source of labels says something else than the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from headway.core.errors import InvalidValue
from headway.core.types import Matrix
from headway.features.historical import ROW_ID
from headway.features.labels import to_matrix
from headway.training.dataset import training_rows
from headway.training.definitions import TrainingJob
from headway.training.gates.results import GateResult, unmeasured
from headway.training.gates.sources import Suspicion, suspects

METRIC = "suspect_sources"


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """The training rows with the source of each label."""

    matrix: Matrix
    """float32 [n, k]."""
    label: npt.NDArray[Any]
    source: npt.NDArray[Any]
    cluster: npt.NDArray[Any] | None
    """Rows of one cluster depend on one another."""
    column: str
    """Where the sources come from."""


def labelled_rows(blocks: Iterable[pa.Table], job: TrainingJob) -> LabelledRows | None:
    """Return the training rows of the blocks in the order of `row_id`; None for a job that declares no source."""
    if job.sources is None:
        return None
    ties, features = job.sources.ties, job.service.features
    columns = list(dict.fromkeys([*features, job.label, job.sources.column, *([ties] if ties else []), ROW_ID]))
    table = pa.concat_tables([training_rows(block).select(columns) for block in blocks]).sort_by(ROW_ID)
    return LabelledRows(
        matrix=to_matrix(table, features),
        label=table[job.label].to_numpy(),
        source=job.sources.names(table[job.sources.column].to_numpy()),
        cluster=None if ties is None else table[ties].to_numpy(),
        column=job.sources.column,
    )


def check_sources(rows: LabelledRows | None, *, seed: int) -> list[GateResult]:
    """Name every source whose labels stand out; one of them is too many. No declared source: no gate."""
    if rows is None:
        return []
    try:
        found = suspects(rows.matrix, rows.label, rows.source, rows.cluster, seed=seed)
    except InvalidValue as error:
        return [unmeasured("poisoning", METRIC, "job", str(error))]
    return [
        GateResult(
            gate="poisoning", metric=METRIC, source="job", value=float(len(found)), ceiling=0.0, passed=not found,
            detail="; ".join(described(rows.column, suspicion) for suspicion in found),
        )
    ]  # fmt: skip


def described(column: str, found: Suspicion) -> str:
    """Return a suspicion in words, without the name of the column where a group already has it."""
    name = found.source if found.source.startswith((f"{column} ", "(")) else f"{column} {found.source}"
    influence = "" if found.influence is None else f", log loss of other rows without it {-found.influence:+.2g}"
    return f"{name}: {found.check} of {found.rows:,} rows, excess {found.excess:+.0f}, p {found.p_value:.2g}{influence}"
