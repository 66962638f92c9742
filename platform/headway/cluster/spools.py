"""Drains replicas' spools into the lake: the decision log and the posted outcomes of a use case."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.core.errors import InvalidValue
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.committer import CommitterClient
from headway.features.lake import TableSpec
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
    """Commit the finished spool files of a use case and return the rows; repeating it adds nothing twice."""
    purposes = (*at.contract(use_case).contract.privacy.purposes, "model_training", "monitoring")
    tables = _Tables(at.committer, purposes)
    home = at.settings.home
    return drain_decisions(home, use_case, tables) + drain_outcomes(home, use_case, tables)


class _Tables:
    """Gives the committer the table that a spool's schema describes."""

    def __init__(self, committer: CommitterClient, purposes: tuple[str, ...]) -> None:
        self._committer = committer
        self._purposes = purposes

    def append_many(self, table: str, batches: Sequence[tuple[pa.Table, str]]) -> int:
        """Append rows to a table made from their schema."""
        columns = {}
        for field in batches[0][0].schema:
            if field.name in (EVENT_TIME, KNOWN_TIME):
                continue
            if field.type not in _DTYPES:
                raise InvalidValue(f"{table}.{field.name}", f"{field.type} has no lake type")
            columns[field.name] = _DTYPES[field.type]
        spec = TableSpec(name=table, columns=columns, purposes=tuple(dict.fromkeys(self._purposes)))
        return self._committer.append_many(spec, batches)
