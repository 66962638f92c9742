"""One batch from rows to decisions: one read of features, one transformation, one prediction, one record.

Everything is per batch. What cannot be trusted is marked in the answer (`degraded`, `arm`), and a score that is not a
finite number never leaves: the rules answer instead, or the caller hears that nobody could.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from headway.core.clock import Clock
from headway.core.errors import HeadwayError, Unavailable
from headway.core.times import EVENT_TIME
from headway.core.types import Columns, Int64, Matrix
from headway.features.definitions import FeatureService
from headway.features.kernel import matrix as build_matrix
from headway.features.kernel import transform
from headway.features.online import OnlineRows
from headway.serving.batch import NO_MODEL, Batch
from headway.serving.breaker import Breaker, State
from headway.serving.decision_ids import DecisionIds
from headway.serving.errors import own
from headway.serving.fallback import RULES_ARM, Rules
from headway.serving.freshness import FreshnessClauses
from headway.serving.input_check import Mask
from headway.serving.meter import Meter
from headway.serving.protocol import Decision
from headway.serving.recomputing import Recomputer
from headway.serving.schema import DecisionSchema
from headway.serving.terms import RULES, Terms
from headway.serving.work import Answer, Call, Model, Recorded, Recorder

_LOG = logging.getLogger(__name__)
_NOT_READY_S = 1.0
_MODEL_FAILURES = 5
"""Calls that a version fails one after the other, each alone in its batch, before it is left alone: a caller's poison
row fails alone as well, so fewer would let one caller take a version away from all."""


class _Guilty(Exception):
    """Some call of a batch breaks the model; which, is found by halving."""


class Reader(Protocol):
    """Online features (`headway.features.online.OnlineReader`)."""

    async def read(self, keys: Columns, at: Int64) -> OnlineRows:
        """Return the features of n rows as of their decision times; raise Unavailable."""
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
        recomputer: Recomputer | None = None,
        meter: Meter | None = None,
        unseen: Callable[[Columns], list[tuple[str, Mask]]] | None = None,
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
        self._features_breaker = Breaker(clock, name="features")
        self._model_breakers: dict[str, tuple[str, Breaker]] = {}
        self._meter = meter or Meter()
        self._unseen = unseen
        self._freshness = FreshnessClauses(service, terms, recomputer)

    @property
    def needs_features(self) -> bool:
        """Whether nothing can be answered while the online store is away: no rules, and a view that must be fresh."""
        return self._rules is None and not self._freshness.optional

    async def __call__(self, calls: Sequence[Call]) -> Sequence[Answer | Exception]:
        """Return one answer or error per call."""
        now, start = self._clock.now(), self._clock.monotonic()
        rows = [row for call in calls for row in call.rows] if len(calls) > 1 else calls[0].rows
        batch = Batch(calls, self._schema.arrays(rows), _times(calls, len(rows), now), now)
        self._meter.began(calls, len(rows), start)
        if self._unseen is not None:
            for mark, outside in self._unseen(batch.columns):
                for index in np.flatnonzero(outside).tolist():
                    batch.mark(index, mark)
        if calls[0].rules_only and all(call.rules_only for call in calls):
            return self._by_rules(batch, "ceiling")
        online = await self._features(batch)
        if online is None:
            return self._by_rules(batch, *(f"features:{view.name}" for view in self._service.views))
        features: Columns = {**batch.columns, **online.columns}
        if online.watermark:
            self._meter.watermark = online.watermark
            await self._freshness.apply(batch, online, features)
        read = self._clock.monotonic()
        batch.served = build_matrix(self._service, transform(self._service, features, batch.at))
        return self._scored(batch, (start, read, self._clock.monotonic()))

    def _scored(self, batch: Batch, times: tuple[float, float, float]) -> Sequence[Answer | Exception]:
        """Predict and finish; a batch that the model cannot take is halved until only the guilty calls fail.

        One guilty call among n costs at most 2·log2(n) + 1 predictions. `times`: start, features read, transformed.
        """
        try:
            found = self._predict(batch)
        except _Guilty:
            answers: list[Answer | Exception] = []
            for half in batch.halves():
                try:
                    answers += self._scored(half, times)
                except Exception as error:  # of this half alone; the other may have been answered and logged
                    answers += [own(error) for _ in half.calls]
            return answers
        if found is None:
            return self._by_rules(batch, "model:failed")
        model, scores = found
        self._meter.scored(batch.calls, *times, self._clock.monotonic())
        model.count(batch.served, scores, batch.at)
        if not np.isfinite(scores).all():
            scores = self._replaced(batch, scores)
        return self._finish(batch, scores)

    async def _features(self, batch: Batch) -> OnlineRows | None:
        """Return the features, or None where the rules shall answer.

        Where the store is away: recomputed ones if the contract says so of every view, else the rules; without rules,
        missing ones if the contract allows that of every view. `watermark` is empty where they are not the store's.
        """
        keys = {name: batch.columns[name] for name, _ in self._schema.keys}
        error: Unavailable | None = None
        if self._features_breaker.acquire():
            try:
                online = await self._reader.read(keys, batch.at)
            except Unavailable as caught:
                self._features_breaker.failed()
                error = caught
            else:
                self._features_breaker.succeeded()
                return online
        found = await self._freshness.instead(batch, keys, without_rules=self._rules is None)
        if found is None and self._rules is None:
            raise error or Unavailable("online features cannot be read", retry_after_s=_NOT_READY_S)
        return found

    def _predict(self, batch: Batch) -> tuple[Model, Matrix] | None:
        """Walk the ladder of models; a batch of several calls that one of them breaks raises _Guilty.

        A version that keeps failing is skipped; after a pause one batch tries it, and has the next step if that fails.
        """
        steps = self._ladder()
        if not steps and self._rules is None:
            raise Unavailable("no model is loaded yet", retry_after_s=_NOT_READY_S)
        for arm, model in steps:
            breaker = self._breaker_of(arm, model.version)
            if not breaker.acquire():
                continue
            try:
                scores = model.predict(batch.served)
            except Exception as error:
                if len(batch.calls) > 1 and breaker.state is State.CLOSED:
                    raise _Guilty from error
                breaker.failed()
                _LOG.warning("%s %s failed on a request: %s", arm, model.version, type(error).__name__)
                continue
            breaker.succeeded()
            if self._rules is None and len(batch.calls) > 1 and not np.isfinite(scores).all():
                raise _Guilty  # nobody answers instead: who asked for it fails alone
            batch.arms = [arm] * len(batch.at)
            batch.version, batch.model = model.version, model
            return model, scores
        return None

    def _breaker_of(self, arm: str, version: str) -> Breaker:
        """Return the breaker of a step of the ladder; another version starts with a new one."""
        known = self._model_breakers.get(arm)
        if known is not None and known[0] == version:
            return known[1]
        breaker = Breaker(self._clock, name=f"model:{arm}", failures=_MODEL_FAILURES)
        self._model_breakers[arm] = (version, breaker)
        return breaker

    def breakers(self) -> list[Breaker]:
        """Return the breakers of features and models, for metrics and readiness."""
        return [self._features_breaker, *(breaker for _, breaker in self._model_breakers.values())]

    def _replaced(self, batch: Batch, scores: Matrix) -> Matrix:
        """Return the scores with the rules' where the model gave none that is a number."""
        if self._rules is None:
            raise Unavailable("the model gave a score that is not a number", retry_after_s=_NOT_READY_S)
        bad = ~np.isfinite(scores)
        columns = {name: values[bad] for name, values in batch.columns.items()}
        scores = scores.copy()  # what the model said is counted
        scores[bad] = self._rules.apply({EVENT_TIME: batch.at[bad], **columns})
        for index in np.flatnonzero(bad).tolist():
            batch.arms[index] = RULES_ARM
            batch.mark(index, "model:not_finite")
        return scores

    def _by_rules(self, batch: Batch, *why: str) -> Sequence[Answer | Exception]:
        """Answer the whole batch by the rules, features as they are or missing."""
        if self._rules is None:
            raise Unavailable(
                f"no model could answer ({', '.join(why)}) and there are no rules", retry_after_s=_NOT_READY_S
            )
        scores = self._rules.apply({EVENT_TIME: batch.at, **batch.columns})
        count = len(batch.at)
        if not batch.served.size:
            batch.served = np.full((count, len(self._service.features)), np.nan, dtype=np.float32)
        batch.arms, batch.version, batch.model = [RULES_ARM] * count, NO_MODEL, None
        batch.mark_all(why)
        return self._finish(batch, scores)

    def _finish(self, batch: Batch, scores: Matrix) -> Sequence[Answer | Exception]:
        """Label, number, record and split the batch."""
        low, high = self._terms.names
        threshold = self._terms.threshold
        identities = self._ids.make(len(batch.at), batch.now)
        decisions = [
            Decision(identity, score, high if score >= threshold else low, arm, batch.degraded.get(index, []))
            for index, (identity, score, arm) in enumerate(zip(identities, scores.tolist(), batch.arms, strict=True))
        ]
        calls = batch.calls
        self._recorder.add(
            Recorded(
                columns=batch.columns,
                at=batch.at,
                now=batch.now,
                features=batch.served,
                scores=scores,
                decisions=decisions,
                model_version=batch.version,
                calls=[(call.sub, call.request_id, len(call.rows)) for call in calls],
                event_ids=self._schema.event_ids(row for call in calls for row in call.rows),
            )
        )
        answers: list[Answer | Exception] = []
        start = 0
        for call in calls:
            end = start + len(call.rows)
            if batch.rejected is not None and batch.rejected[start:end].any():
                answers.append(_stale(decisions[start:end]))
            else:
                answer = Answer(batch.version, decisions[start:end])
                if call.explain:
                    answer.model, answer.served = batch.model, batch.served[start:end]
                answers.append(answer)
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
