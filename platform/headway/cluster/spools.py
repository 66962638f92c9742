"""Drains replicas' spools into the lake: the decision log and the posted outcomes of a use case.

Either is drained whatever becomes of the other: labels must not wait for a decision log that cannot be committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.core.errors import InvalidValue, PlatformError
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.committer_actor import CommitterClient
from headway.features.lake import TableSpec
from headway.serving.outcome_ids import outcome_ids
from headway.serving.outcomes import drain_outcomes
from headway.serving.recorder import drain_decisions

_DTYPES = {
    pa.int64(): "int64",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.string(): "string",
    pa.bool_(): "bool",
}


def drain_spools(at: Installation, use_case: str) -> int:
    """Commit the finished spool files of a use case and return the rows; repeating it adds nothing twice.

    What fails is raised after both were tried: the error itself, or one PlatformError that names both.
    """
    purposes = (*at.contract(use_case).contract.privacy.purposes, "model_training", "monitoring")
    tables = _Tables(at.committer, purposes)
    home = at.settings.home
    rows, failed = 0, list[Exception]()
    drains: tuple[Callable[[], int], ...] = (
        lambda: drain_decisions(home, use_case, tables),
        lambda: drain_outcomes(home, use_case, tables, outcome_ids(at.control, use_case)),
    )
    for drained in drains:
        try:
            rows += drained()
        except Exception as error:  # raised below
            failed.append(error)
    if len(failed) > 1:
        decisions, outcomes = failed
        raise PlatformError(f"decisions: {decisions}; outcomes: {outcomes}", hint="headway status") from decisions
    if failed:
        raise failed[0]
    return rows


class _Tables:
    """Gives the committer the table that a spool's schema describes."""

    def __init__(self, committer: CommitterClient, purposes: tuple[str, ...]) -> None:
        self._committer = committer
        self._purposes = purposes

    def append_many(self, table: str, batches: Sequence[tuple[pa.Table, str]]) -> int:
        """Append rows of one schema to a table that is made from it, or gets its new columns."""
        columns = {}
        for field in batches[0][0].schema:
            if field.name in (EVENT_TIME, KNOWN_TIME):
                continue
            if field.type not in _DTYPES:
                raise InvalidValue(f"{table}.{field.name}", f"{field.type} has no lake type")
            columns[field.name] = _DTYPES[field.type]
        purposes = tuple(dict.fromkeys(self._purposes))
        spec = TableSpec(name=table, columns=columns, purposes=purposes, evolves=True)
        return self._committer.append_many(spec, batches)
