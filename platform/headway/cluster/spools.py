"""Drains replicas' spools into the lake: the decision log and the posted outcomes of a use case, and from there on.

Either is drained whatever becomes of the other: labels must not wait for a decision log that cannot be committed. Then
outcomes whose decisions are there become events of the sources that they feed (`cluster.outcomes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.cluster.outcomes import OutcomeFeed
from headway.core.errors import InvalidValue, PlatformError
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.lake.committer_actor import CommitterClient
from headway.features.lake.tables import TableSpec
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

    What fails is raised after all was tried: the error itself, or one PlatformError that names each. Outcomes that have
    become events are no rows of their own.
    """
    purposes = (*at.contract(use_case).contract.privacy.purposes, "model_training", "monitoring")
    tables = _Tables(at.committer, purposes)
    home = at.settings.home
    feed = cache(lambda: OutcomeFeed(at, use_case))  # made where it is needed: its error must not stop the decisions
    steps: dict[str, Callable[[], int]] = {
        "decisions": lambda: drain_decisions(home, use_case, tables),
        "outcomes": lambda: drain_outcomes(home, use_case, tables, outcome_ids(at.control, use_case), then=feed().take),
        "events": lambda: feed().work(),
    }
    done, failed = dict.fromkeys(steps, 0), dict[str, Exception]()
    for what, step in steps.items():
        try:
            done[what] = step()
        except Exception as error:  # raised below
            failed[what] = error
    if len(failed) > 1:
        told = "; ".join(f"{what}: {error}" for what, error in failed.items())
        raise PlatformError(told, hint="headway status") from next(iter(failed.values()))
    if failed:
        raise next(iter(failed.values()))
    return done["decisions"] + done["outcomes"]


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
