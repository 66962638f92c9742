"""Outcomes: what became of decisions. Unknown ids are refused by their own tag, repeats by the control store."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import Forbidden, InvalidValue
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.serving.decision_ids import DecisionIds
from headway.serving.protocol import OutcomeRow
from headway.serving.spool import Committer, Spool, drain

_REMEMBER_S = 400 * 86_400
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
        self._key = f"outcome:{use_case}"
        self._ids = ids
        self._store = store
        self._names = names
        self._clock = clock
        self._spool: Spool[list[tuple[str, float, int, int, str]]] = Spool(
            folder, writer, _SCHEMA, _batch, durable=True
        )

    def take(self, rows: list[OutcomeRow], sub: str, *, may_replay: bool) -> OutcomesAnswer:
        """Count and keep the rows; every row is checked before the first is taken."""
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
        new = self._store.add_once(self._key, [item[0] for item in ours], expire_s=_REMEMBER_S) if ours else []
        taken = [item for item, first in zip(ours, new, strict=True) if first]
        answer = OutcomesAnswer(accepted=len(taken), duplicate=len(ours) - len(taken), unknown=len(checked) - len(ours))
        if taken:
            self._spool.add(taken, len(taken))
        return answer

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


def drain_outcomes(home: Path, use_case: str, committer: Committer) -> int:
    """Commit finished spool files to `outcomes.<use case>`; return the rows."""
    return drain(outcomes_folder(home, use_case), outcomes_table(use_case), committer)
