"""Proof of no skew: feature values served online, recomputed point-in-time from the lake, compared bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME
from headway.core.types import Matrix, Principal
from headway.features.definitions import FeatureService
from headway.features.historical import offline_features
from headway.features.kernel import matrix
from headway.features.reader import LakeReader

_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One value that differs."""

    row: int
    keys: dict[str, Any]
    event_time: int
    """Decision time, UTC microseconds."""
    feature: str
    served: float
    recomputed: float


@dataclass(frozen=True, kw_only=True)
class ConsistencyReport:
    """What a check found."""

    reads: int
    """Rows compared."""
    mismatches: int
    """Rows of which at least one value differs."""
    values: int
    """Values compared."""
    by_feature: dict[str, int]
    """Values that differ, per feature that has any."""
    examples: tuple[Mismatch, ...]
    """The first ten."""


def check(
    service: FeatureService,
    served: pa.Table,
    reader: LakeReader,
    principal: Principal,
    purpose: str,
    *,
    snapshots: Mapping[str, int] | None = None,
) -> ConsistencyReport:
    """Recompute served rows and compare every feature of the service; two missing values are equal.

    `served` holds, per read, the service's keys and request columns, `event_time` (decision time) and the feature
    values as the model saw them; the decision log is such a table. Rows answered without features do not belong here.
    """
    wanted = [*service.keys, *service.request, EVENT_TIME, *service.features]
    for name in wanted:
        if name not in served.column_names:
            raise InvalidValue(name, f"the served rows lack a column of {service.name}")
    spine = served.select(list(dict.fromkeys([*service.keys, *service.request, EVENT_TIME])))
    again = offline_features(spine, service, reader, principal, purpose, snapshots=snapshots)
    seen, true = _matrix(service, served), _matrix(service, again)
    differs = (seen.view(np.int32) != true.view(np.int32)) & ~(np.isnan(seen) & np.isnan(true))
    counts = differs.sum(axis=0).tolist()
    examples = [
        Mismatch(
            row=row,
            keys={key: served[key][row].as_py() for key in service.keys},
            event_time=spine[EVENT_TIME].cast(pa.int64())[row].as_py(),
            feature=service.features[column],
            served=float(seen[row, column]),
            recomputed=float(true[row, column]),
        )
        for row, column in np.argwhere(differs)[:_EXAMPLES].tolist()
    ]
    return ConsistencyReport(
        reads=served.num_rows,
        mismatches=int(differs.any(axis=1).sum()) if differs.size else 0,
        values=int(differs.size),
        by_feature={name: int(n) for name, n in zip(service.features, counts, strict=True) if n},
        examples=tuple(examples),
    )


def _matrix(service: FeatureService, table: pa.Table) -> Matrix:
    return matrix(service, {name: np.asarray(table[name].to_numpy()) for name in service.features})
