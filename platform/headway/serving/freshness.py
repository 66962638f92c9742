"""The freshness clauses of a contract, applied to a batch: what a value becomes that is older than agreed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headway.core.types import Columns
from headway.features.definitions import FeatureService, RowView
from headway.features.online import OnlineRows
from headway.features.status import Status
from headway.serving.batch import Batch
from headway.serving.recomputing import Recomputer
from headway.serving.terms import RECOMPUTE, REJECT, Terms

_MARKS = {Status.MISSING: "missing", Status.EXPIRED: "expired", Status.TRUNCATED: "truncated"}


class FreshnessClauses:
    """The clauses of one use case."""

    def __init__(self, service: FeatureService, terms: Terms, recomputer: Recomputer | None) -> None:
        self._views = service.views
        self._keys = service.keys
        self._joined = {
            stored.name: [view for view in service.views if view.stored.name == stored.name]
            for stored in service.stored
        }
        self._features = {
            name: [feature for view in views for feature in view.features] for name, views in self._joined.items()
        }
        self._clauses = terms.freshness
        self._on_stale = {clause.view: clause.on_stale for clause in terms.freshness}
        self._recomputer = recomputer

    @property
    def optional(self) -> bool:
        """Whether a decision may be made without any stored feature."""
        return all(self._on_stale.get(view.stored.name, REJECT) != REJECT for view in self._views)

    async def apply(self, batch: Batch, online: OnlineRows, features: Columns) -> None:
        """Mark rows by status, and apply the freshness clauses to `features` in place."""
        status = dict(online.status)
        await self._recompute(batch, online.watermark, features, status)
        _mark(batch, status)
        for clause in self._clauses:
            if clause.view in batch.recomputed:
                continue
            watermark = online.watermark.get(clause.view) or 0
            if batch.fresh(watermark, clause.max_lag):
                continue
            stale = batch.at - watermark > clause.max_lag
            for index in np.flatnonzero(stale).tolist():
                batch.mark(index, f"stale:{clause.view}")
            if clause.on_stale == REJECT:
                batch.rejected = stale if batch.rejected is None else batch.rejected | stale
                continue
            for name in self._features[clause.view]:
                features[name] = _without(features[name], stale)

    async def instead(self, batch: Batch, keys: Columns, *, without_rules: bool) -> OnlineRows | None:
        """Return features while the store is away, with an empty `watermark`; None: the contract knows of none.

        Recomputed ones where the contract says so of every view; without rules to answer, missing ones where it allows
        that of every view.
        """
        ways = [self._on_stale.get(view.stored.name, REJECT) for view in self._views]
        names = [view.name for view in self._views]
        if self._recomputer is not None and all(way == RECOMPUTE for way in ways):
            found = await self._recomputer.read(names, keys, batch.at)
            if found is not None:
                batch.mark_all(f"recomputed:{name}" for name in names)
                _mark(batch, found.status)
                return found
        if not without_rules or REJECT in ways:
            return None
        batch.mark_all(f"features:{name}" for name in names)
        columns: Columns = {}
        for view in self._views:
            stored = view.stored
            dtypes = stored.dtypes if isinstance(stored, RowView) else ("float32",) * len(view.features)
            for name, dtype in zip(view.features, dtypes, strict=True):
                columns[name] = np.full(len(batch.at), *((None, object) if dtype == "string" else (np.nan, np.float32)))
        return OnlineRows(parts=[lambda: columns], status={}, watermark={})

    async def _recompute(
        self,
        batch: Batch,
        watermark: Mapping[str, int],
        features: Columns,
        status: dict[str, npt.NDArray[np.uint8]],
    ) -> None:
        """Replace the values of stale rows by those of the lake, where the contract says so and it answers in time."""
        behind = {
            clause.view: batch.at - watermark.get(clause.view, 0) > clause.max_lag
            for clause in self._clauses
            if clause.on_stale == RECOMPUTE and not batch.fresh(watermark.get(clause.view, 0), clause.max_lag)
        }
        if self._recomputer is None or not behind:
            return
        some = np.logical_or.reduce(list(behind.values()))
        keys = {name: batch.columns[name][some] for name in self._keys}
        found = await self._recomputer.read(
            [view.name for name in behind for view in self._joined[name]], keys, batch.at[some]
        )
        if found is None:
            return
        for view, rows in behind.items():
            taken = rows[some]
            for joined in self._joined[view]:
                status[joined.name] = _with(status[joined.name], rows, found.status[joined.name][taken])
            for name in self._features[view]:
                features[name] = _with(features[name], rows, found.columns[name][taken])
            for index in np.flatnonzero(rows).tolist():
                batch.mark(index, f"recomputed:{view}")
            batch.recomputed.add(view)


def _mark(batch: Batch, statuses: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    for view, status in statuses.items():
        if np.count_nonzero(status):
            for index in np.flatnonzero(status).tolist():
                mark = _MARKS.get(Status(int(status[index])))
                if mark is not None:
                    batch.mark(index, f"{mark}:{view}")


def _without(column: npt.NDArray[Any], rows: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return a column of features with some rows missing: NaN, or None among strings."""
    if column.dtype.kind == "O":
        kept = column.copy()
        kept[rows] = None
        return kept
    wide = column.astype(np.float64) if column.dtype.kind in "biu" else column
    return np.where(rows, wide.dtype.type(np.nan), wide)


def _with(column: npt.NDArray[Any], rows: npt.NDArray[np.bool_], values: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
    """Return a column of features with other values in some rows."""
    both = column.astype(np.result_type(column.dtype, values.dtype))
    both[rows] = values
    return both
