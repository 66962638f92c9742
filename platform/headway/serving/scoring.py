"""One batch from rows to decisions: one read of features, one transformation, one prediction, one record.

Everything is per batch. What cannot be trusted is marked in the answer (`degraded`, `arm`), and a score that is not a
finite number never leaves: the rules answer instead, or the caller hears that nobody could.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headway.core.clock import Clock
from headway.core.errors import HeadwayError, Unavailable
from headway.core.times import EVENT_TIME
from headway.core.types import Columns, Int64, Matrix
from headway.features.definitions import FeatureService
from headway.features.kernel import matrix as build_matrix
from headway.features.kernel import transform
from headway.features.windows import Status
from headway.serving.breaker import Breaker
from headway.serving.decision_ids import DecisionIds
from headway.serving.fallback import RULES_ARM, Rules
from headway.serving.protocol import Decision
from headway.serving.schema import DecisionSchema
from headway.serving.terms import REJECT, RULES, Terms
from headway.serving.work import Answer, Call, Model, Recorded, Recorder

_LOG = logging.getLogger(__name__)
_NOT_READY_S = 1.0
_MARKS = {Status.MISSING: "missing", Status.EXPIRED: "expired", Status.TRUNCATED: "truncated"}
NO_MODEL = "none"


class Reader(Protocol):
    """Online features (`headway.features.online.OnlineReader`)."""

    async def read(self, keys: Columns, at: Int64) -> Any:
        """Return `.columns`, `.status` and `.watermark`; raise Unavailable."""
        ...


class Scorer:
    """Scores batches of one use case."""

    def __init__(
        self,
        *,
        service: FeatureService,
        terms: Terms,
        reader: Reader,
        ladder: Callable[[], Sequence[tuple[str, Model]]],
        rules: Rules | None,
        recorder: Recorder,
        ids: DecisionIds,
        clock: Clock,
    ) -> None:
        self._service = service
        self._schema = DecisionSchema.of(service)
        self._terms = terms
        self._reader = reader
        self._ladder = ladder
        self._rules = rules if RULES in terms.ladder else None
        self._recorder = recorder
        self._ids = ids
        self._clock = clock
        self._breaker = Breaker(clock)
        self._view_features = {view.name: view.features for view in service.views}
        self._request = {name for name, _ in self._schema.request}

    async def __call__(self, calls: Sequence[Call]) -> Sequence[Answer | Exception]:
        """Return one answer or error per call."""
        now = self._clock.now()
        rows = [row for call in calls for row in call.rows] if len(calls) > 1 else calls[0].rows
        count = len(rows)
        columns = self._schema.arrays(rows)
        at = _times(calls, count, now)
        if calls[0].rules_only and all(call.rules_only for call in calls):
            return self._by_rules(calls, columns, at, now, "ceiling")
        online = await self._features(columns, at)
        if online is None:
            return self._by_rules(calls, columns, at, now, "features:unavailable")
        features: Columns = {**columns, **online.columns}
        degraded, rejected = self._judge(online, features, at)
        served = build_matrix(self._service, transform(self._service, features, at))
        arm, version, scores = self._predict(served, alone=len(calls) == 1, at=at)
        if scores is None:
            return self._by_rules(calls, columns, at, now, "model:failed", served)
        arms = [arm] * count
        bad = ~np.isfinite(scores)
        if bad.any():
            self._replace(scores, bad, columns, at, arms, degraded)
        return self._finish(calls, columns, at, now, served, scores, arms, degraded, version, rejected)

    async def _features(self, columns: Columns, at: Int64) -> Any:
        """Return the online rows, or None where the rules shall answer."""
        keys = {name: columns[name] for name, _ in self._schema.keys}
        error: Unavailable | None = None
        if self._breaker.allows:
            try:
                online = await self._reader.read(keys, at)
            except Unavailable as caught:
                self._breaker.failed()
                error = caught
            else:
                self._breaker.succeeded()
                return online
        if self._rules is None:
            raise error or Unavailable("online features cannot be read", retry_after_s=_NOT_READY_S)
        return None

    def _judge(self, online: Any, features: Columns, at: Int64) -> tuple[list[list[str]], npt.NDArray[np.bool_] | None]:
        """Mark rows by status, and apply the freshness clauses to `features` in place."""
        count = len(at)
        degraded: list[list[str]] = [[] for _ in range(count)]
        rejected: npt.NDArray[np.bool_] | None = None
        for view, status in online.status.items():
            if status.any():
                for index in np.flatnonzero(status).tolist():
                    mark = _MARKS.get(Status(int(status[index])))
                    if mark is not None:
                        degraded[index].append(f"{mark}:{view}")
        for clause in self._terms.freshness:
            stale = at - online.watermark.get(clause.view, 0) > clause.max_lag
            if not stale.any():
                continue
            for index in np.flatnonzero(stale).tolist():
                degraded[index].append(f"stale:{clause.view}")
            if clause.on_stale == REJECT:
                rejected = stale if rejected is None else rejected | stale
                continue
            for name in self._view_features[clause.view]:
                features[name] = np.where(stale, np.float32(np.nan), features[name]).astype(np.float32)
        return degraded, rejected

    def _predict(self, served: Matrix, *, alone: bool, at: Int64) -> tuple[str, str, Matrix | None]:
        """Walk the ladder of models; a failing batch of several calls is raised, so that the batcher halves it."""
        steps = self._ladder()
        if not steps and self._rules is None:
            raise Unavailable("no model is loaded yet", retry_after_s=_NOT_READY_S)
        for arm, model in steps:
            try:
                scores = model.predict(served)
            except Exception as error:
                if not alone:
                    raise
                _LOG.warning("%s %s failed on a request: %s", arm, model.version, type(error).__name__)
                continue
            model.count(served, scores, at)
            return arm, model.version, scores
        if self._rules is None:
            raise Unavailable("no model could answer", retry_after_s=_NOT_READY_S)
        return RULES_ARM, NO_MODEL, None

    def _replace(
        self,
        scores: Matrix,
        bad: npt.NDArray[np.bool_],
        columns: Columns,
        at: Int64,
        arms: list[str],
        degraded: list[list[str]],
    ) -> None:
        """Put the rules' score where the model gave none."""
        if self._rules is None:
            raise Unavailable("the model gave a score that is not a number", retry_after_s=_NOT_READY_S)
        chosen = self._rules.apply({EVENT_TIME: at[bad], **{name: values[bad] for name, values in columns.items()}})
        scores[bad] = chosen
        for index in np.flatnonzero(bad).tolist():
            arms[index] = RULES_ARM
            degraded[index].append("model:not_finite")

    def _by_rules(
        self, calls: Sequence[Call], columns: Columns, at: Int64, now: int, why: str, served: Matrix | None = None
    ) -> Sequence[Answer | Exception]:
        if self._rules is None:
            raise Unavailable(f"no fallback for {why}", retry_after_s=_NOT_READY_S)
        scores = self._rules.apply({EVENT_TIME: at, **columns})
        if served is None:
            served = np.full((len(at), len(self._service.features)), np.nan, dtype=np.float32)
        degraded = [[why] for _ in range(len(at))]
        return self._finish(calls, columns, at, now, served, scores, [RULES_ARM] * len(at), degraded, NO_MODEL, None)

    def _finish(
        self,
        calls: Sequence[Call],
        columns: Columns,
        at: Int64,
        now: int,
        served: Matrix,
        scores: Matrix,
        arms: list[str],
        degraded: list[list[str]],
        version: str,
        rejected: npt.NDArray[np.bool_] | None,
    ) -> Sequence[Answer | Exception]:
        low, high = self._terms.names
        threshold = self._terms.threshold
        decisions = [
            Decision(identity, score, high if score >= threshold else low, arm, marks)
            for identity, score, arm, marks in zip(
                self._ids.make(len(at), now), scores.tolist(), arms, degraded, strict=True
            )
        ]
        self._recorder.add(
            Recorded(
                columns=columns,
                at=at,
                now=now,
                features=served,
                scores=scores,
                decisions=decisions,
                model_version=version,
                calls=[(call.sub, call.request_id, len(call.rows)) for call in calls],
            )
        )
        if len(calls) == 1 and rejected is None:
            return [Answer(version, decisions)]
        answers: list[Answer | Exception] = []
        start = 0
        for call in calls:
            end = start + len(call.rows)
            if rejected is not None and rejected[start:end].any():
                answers.append(_stale(decisions[start:end]))
            else:
                answers.append(Answer(version, decisions[start:end]))
            start = end
        return answers


def _times(calls: Sequence[Call], count: int, now: int) -> Int64:
    """Return each row's decision time: its own, its request's, or now."""
    at = np.full(count, now, dtype=np.int64)
    start = 0
    for call in calls:
        if call.replayed:
            default = now if call.as_of is None else call.as_of
            at[start : start + call.size] = [default if row[-1] is None else row[-1] for row in call.rows]
        start += call.size
    return at


def _stale(decisions: list[Decision]) -> HeadwayError:
    views = sorted({mark for decision in decisions for mark in decision.degraded if mark.startswith("stale:")})
    return Unavailable(
        f"features are older than the contract allows: {', '.join(views)}",
        retry_after_s=_NOT_READY_S,
        hint="the contract says on_stale: reject",
    )
