"""Proof of no skew: feature values served online, recomputed point-in-time from the lake, compared bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME
from headway.core.types import Matrix, Principal
from headway.features.arrow import times
from headway.features.definitions import FeatureService
from headway.features.historical import offline_features
from headway.features.kernel import matrix
from headway.features.lake.reader import LakeReader

CONSISTENT, SKEWED, NOTHING = "consistent", "skewed", "nothing compared"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One value that differs."""

    row: int
    keys: dict[str, Any]
    event_time: int
    """Decision time, UTC microseconds."""
    served: float | None
    """None: missing, here and below."""
    recomputed: float | None


@dataclass(frozen=True, kw_only=True)
class FeatureConsistency:
    """How the served values of one feature compare with the recomputed ones."""

    feature: str
    compared: int
    equal: int
    mismatched: int
    """Both have a value, and they differ."""
    missing: int
    """The recomputation has a value that was not served."""
    extra: int
    """A value was served that the recomputation does not have."""
    worst: Difference | None
    """The largest difference; a value on one side only counts as infinite."""


@dataclass(frozen=True, kw_only=True)
class ConsistencyReport:
    """What a check found."""

    reads: int
    """Rows compared."""
    mismatches: int
    """Rows of which at least one value differs."""
    verdict: str
    """`consistent`, `skewed`, or `nothing compared`: what a gate reads."""
    features: tuple[FeatureConsistency, ...]

    @property
    def differing(self) -> tuple[FeatureConsistency, ...]:
        """Features with any difference, the worst first."""
        found = [feature for feature in self.features if feature.equal != feature.compared]
        return tuple(sorted(found, key=lambda feature: feature.equal - feature.compared))


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
    if not served.num_rows:
        return ConsistencyReport(reads=0, mismatches=0, verdict=NOTHING, features=())
    spine = served.select(list(dict.fromkeys([*service.keys, *service.request, EVENT_TIME])))
    again = offline_features(spine, service, reader, principal, purpose, snapshots=snapshots)
    seen, true = _matrix(service, served), _matrix(service, again)
    differs = (seen.view(np.int32) != true.view(np.int32)) & ~(np.isnan(seen) & np.isnan(true))
    mismatches = int(differs.any(axis=1).sum())
    at = times(spine, EVENT_TIME)

    def example(row: int, column: int) -> Difference:
        return Difference(
            row=row,
            keys={key: served[key][row].as_py() for key in service.keys},
            event_time=int(at[row]),
            served=_value(seen[row, column]),
            recomputed=_value(true[row, column]),
        )

    return ConsistencyReport(
        reads=served.num_rows,
        mismatches=mismatches,
        verdict=SKEWED if mismatches else CONSISTENT,
        features=tuple(
            _feature(name, seen[:, column], true[:, column], differs[:, column], column, example)
            for column, name in enumerate(service.features)
        ),
    )


def _feature(
    name: str,
    seen: Matrix,
    true: Matrix,
    differs: npt.NDArray[np.bool_],
    column: int,
    example: Callable[[int, int], Difference],
) -> FeatureConsistency:
    missing, extra = np.isnan(seen) & differs, np.isnan(true) & differs
    wrong = int(differs.sum())
    distance = np.where(differs, np.nan_to_num(np.abs(seen.astype(np.float64) - true), nan=np.inf), -1.0)
    return FeatureConsistency(
        feature=name,
        compared=len(seen),
        equal=len(seen) - wrong,
        mismatched=wrong - int(missing.sum()) - int(extra.sum()),
        missing=int(missing.sum()),
        extra=int(extra.sum()),
        worst=example(int(distance.argmax()), column) if wrong else None,
    )


def _value(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _matrix(service: FeatureService, table: pa.Table) -> Matrix:
    return matrix(service, {name: np.asarray(table[name].to_numpy()) for name in service.features})
