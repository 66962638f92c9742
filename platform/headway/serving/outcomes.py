"""Outcomes: what became of decisions. Unknown ids are refused by their own tag, repeats by the control store.

An outcome is on disk before it is answered, and remembered after that: a replica that dies in between has answered
nobody, and the retry is taken again. So a label may lie in two spool files, and never in none. Which of them counts is
settled when they are drained: each id belongs to the first file that asks for it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import Forbidden, InvalidValue
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.serving.decision_ids import DecisionIds
from headway.serving.drain import Committer, Then, drain
from headway.serving.outcome_ids import FREE, TAKEN, OutcomeIds, outcome_ids, owner_of
from headway.serving.protocol import OutcomeRow
from headway.serving.spool import Spool

_SCHEMA = pa.schema(
    [
        pa.field("decision_id", pa.string()),
        pa.field("label", pa.float32()),
        pa.field(EVENT_TIME, pa.int64()),
        pa.field(KNOWN_TIME, pa.int64()),
        pa.field("sub", pa.string()),
    ]
)


class OutcomesAnswer(msgspec.Struct):
    """What happened to the rows of one request."""

    accepted: int = 0
    duplicate: int = 0
    unknown: int = 0


def outcomes_table(use_case: str) -> str:
    """Return the lake table of a use case's outcomes."""
    return f"outcomes.{use_case}"


def outcomes_folder(home: Path, use_case: str) -> Path:
    """Return the spool folder of a use case's outcomes."""
    return home / "spool" / outcomes_table(use_case)


class Outcomes:
    """Takes outcomes of one use case; blocking, run it in a thread."""

    def __init__(
        self,
        use_case: str,
        *,
        ids: DecisionIds,
        store: ControlStore,
        names: tuple[str, str],
        folder: Path,
        writer: str,
        clock: Clock,
    ) -> None:
        self._ids = ids
        self._seen = outcome_ids(store, use_case)
        self._names = names
        self._clock = clock
        self._spool: Spool[list[tuple[str, float, int, int, str]]] = Spool(
            folder, writer, _SCHEMA, _batch, durable=True
        )

    def take(self, rows: list[OutcomeRow], sub: str, *, may_replay: bool) -> OutcomesAnswer:
        """Count and keep the rows; every row is checked before the first is taken, and on disk before it is counted.

        Raises Unavailable if disk or control store do not answer; repeating the request then loses and doubles nothing.
        """
        self._spool.require_room()
        now = self._clock.now()
        checked: list[tuple[str, float, int, int, str]] = []
        for index, row in enumerate(rows):
            label = self._label(row.label, f"outcomes[{index}].label")
            if row.known_time is not None and not may_replay:
                raise Forbidden("known_time may be set only with the scope replay:<use case>")
            known = now if row.known_time is None else int(row.known_time)
            checked.append((row.decision_id, label, int(row.event_time), known, sub))
        ours = [item for item in checked if self._ids.known(item[0])]
        first = {item[0]: item for item in reversed(ours)}
        owners = self._seen.mark(list(first), FREE)
        new = [first[item] for item, owner in zip(first, owners, strict=True) if owner == FREE]
        accepted = 0
        if new:
            self._spool.add_and_sync(new, len(new))
            accepted = self._seen.mark([item[0] for item in new], TAKEN).count(FREE)
        return OutcomesAnswer(accepted=accepted, duplicate=len(ours) - accepted, unknown=len(checked) - len(ours))

    @property
    def alive(self) -> bool:
        """Whether outcomes are still written."""
        return self._spool.alive

    def close(self) -> None:
        """Write what is left."""
        self._spool.close()

    def _label(self, label: bool | int | str, field: str) -> float:
        if isinstance(label, str):
            if label not in self._names:
                raise InvalidValue(field, f"unknown label {label!r}", hint=f"0, 1, {' or '.join(self._names)}")
            return float(self._names.index(label))
        if label not in (0, 1):
            raise InvalidValue(field, f"{label} is not a label", hint=f"0, 1, {' or '.join(self._names)}")
        return float(label)


def _batch(groups: list[list[tuple[str, float, int, int, str]]]) -> pa.RecordBatch:
    columns = list(zip(*(row for group in groups for row in group), strict=True))
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA)


def drain_outcomes(
    home: Path, use_case: str, committer: Committer, seen: OutcomeIds, *, then: Then | None = None
) -> int:
    """Commit finished spool files to `outcomes.<use case>`, one row per decision ever; return the rows.

    `then` gets the same rows before their file goes, perhaps more than once.
    """

    def counted(data: pa.Table, batch_id: str) -> pa.Table:
        owner = owner_of(batch_id)
        ids = data["decision_id"].to_pylist()
        rows = {item: row for row, item in reversed(list(enumerate(ids)))}
        before = seen.mark(list(rows), owner)
        kept = [row for row, found in zip(rows.values(), before, strict=True) if found in (FREE, TAKEN, owner)]
        return data.take(pa.array(sorted(kept), pa.int64()))

    return drain(outcomes_folder(home, use_case), outcomes_table(use_case), committer, keep=counted, then=then)
