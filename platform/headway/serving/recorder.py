"""The decision log: what was asked, which feature values were served, and what was answered, on its way to the lake.

The served values are kept bit for bit, so that `headway.features.consistency` can recompute each read offline. Answers
never wait for the log.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from headway.core.clock import Clock
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.features.definitions import FeatureService
from headway.serving.drain import Committer, drain
from headway.serving.schema import DecisionSchema
from headway.serving.spool import Spool
from headway.serving.work import Recorded

_ARROW = {
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
}


def decisions_table(use_case: str) -> str:
    """Return the lake table of a use case's decisions."""
    return f"decisions.{use_case}"


def decisions_folder(home: Path, use_case: str) -> Path:
    """Return the spool folder of a use case's decisions."""
    return home / "spool" / decisions_table(use_case)


class DecisionRecorder:
    """Spools scored batches."""

    def __init__(
        self, service: FeatureService, folder: Path, writer: str, *, durable: bool, clock: Clock | None = None
    ) -> None:
        schema = DecisionSchema.of(service)
        self._columns, self._own = schema.columns, schema.event_id
        taken = {name for name, _ in self._columns}
        self._features = [(index, name) for index, name in enumerate(service.features) if name not in taken]
        self.schema = decision_log_schema(service)
        self.spool: Spool[Recorded] = Spool(folder, writer, self.schema, self._build, durable=durable, clock=clock)

    def add(self, batch: Recorded) -> None:
        """Take a batch; never waits."""
        self.spool.add(batch, len(batch.decisions))

    def close(self) -> None:
        """Write what is left."""
        self.spool.close()

    def _build(self, batches: list[Recorded]) -> pa.RecordBatch:
        decisions = [decision for batch in batches for decision in batch.decisions]
        sizes = [len(batch.decisions) for batch in batches]
        features = np.concatenate([batch.features for batch in batches])
        arrays = [
            pa.array([decision.decision_id for decision in decisions], pa.string()),
            pa.array([request for batch in batches for _, request, n in batch.calls for _ in range(n)], pa.string()),
            pa.array([sub for batch in batches for sub, _, n in batch.calls for _ in range(n)], pa.string()),
            pa.array(np.concatenate([batch.at for batch in batches])),
            pa.array(np.repeat([batch.now for batch in batches], sizes).astype(np.int64)),
        ]
        arrays += [
            pa.array(np.concatenate([batch.columns[name] for batch in batches]), _ARROW[dtype])
            for name, dtype in self._columns
        ]
        if self._own is not None:
            named = [
                own
                for batch, size in zip(batches, sizes, strict=True)
                for own in ([None] * size if batch.event_ids is None else batch.event_ids)
            ]
            arrays.append(pa.array(named, _ARROW[self._own[1]]))
        arrays += [pa.array(features[:, index]) for index, _ in self._features]
        arrays += [
            pa.array(np.concatenate([batch.scores for batch in batches])),
            pa.array([decision.label for decision in decisions], pa.string()),
            pa.array([decision.arm for decision in decisions], pa.string()),
            pa.array([b.model_version for b, n in zip(batches, sizes, strict=True) for _ in range(n)], pa.string()),
            pa.array([",".join(decision.degraded) for decision in decisions], pa.string()),
        ]
        return pa.record_batch(arrays, schema=self.schema)


def decision_log_schema(service: FeatureService) -> pa.Schema:
    """Return the columns of the decision log of a feature service.

    event_time is the decision time; known_time is when it was decided, which differs from it in replays. A feature that
    is missing is NaN, as it was for the model. The client's own id of the event is null where a row had none.
    """
    schema = DecisionSchema.of(service)
    columns, own = schema.columns, schema.event_id
    taken = {name for name, _ in columns}
    fields = [
        pa.field("decision_id", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("sub", pa.string()),
        pa.field(EVENT_TIME, pa.int64()),
        pa.field(KNOWN_TIME, pa.int64()),
        *(pa.field(name, _ARROW[dtype]) for name, dtype in columns),
        *([] if own is None else [pa.field(own[0], _ARROW[own[1]])]),
        *(pa.field(name, pa.float32()) for name in service.features if name not in taken),
        pa.field("score", pa.float32()),
        pa.field("label", pa.string()),
        pa.field("arm", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("degraded", pa.string()),
    ]
    return pa.schema(fields)


def drain_decisions(home: Path, use_case: str, committer: Committer) -> int:
    """Commit finished spool files to `decisions.<use case>`; return the rows."""
    return drain(decisions_folder(home, use_case), decisions_table(use_case), committer)


__all__ = ["DecisionRecorder", "decision_log_schema", "decisions_folder", "decisions_table", "drain", "drain_decisions"]
