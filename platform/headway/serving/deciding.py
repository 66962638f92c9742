"""One decision call behind its decoding: once per idempotency key, admitted, batched. Every protocol ends here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from headway.core.clock import Clock
from headway.core.errors import Forbidden, InvalidValue, Unavailable
from headway.core.types import Principal
from headway.serving.admission import Admission, Verdict
from headway.serving.batching import Batcher
from headway.serving.explaining import EXTRA_ROWS, Explaining
from headway.serving.http import Request, Response
from headway.serving.idempotency import Idempotency
from headway.serving.meter import Meter
from headway.serving.priority import Priority, priority_of
from headway.serving.protocol import EXPLAIN, DecisionCall, DecisionsBody
from headway.serving.shared_answers import Claim, SharedAnswers
from headway.serving.tracing import RequestTrace
from headway.serving.work import Answer, Call

Encode = Callable[[DecisionsBody], Response]


class Exchange(Protocol):
    """One request that is answered where it arrived (`headway.serving.wire`)."""

    request_id: str

    @property
    def over(self) -> bool:
        """Whether the caller has gone, or has its answer."""
        ...

    def send(self, response: Response) -> None:
        """Answer."""
        ...

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        ...


class Decider:
    """Decides for one use case; lives on one event loop."""

    def __init__(
        self,
        use_case: str,
        *,
        admission: Admission,
        batcher: Batcher[Call, Answer],
        room: Callable[[], None],
        patience_s: float,
        clock: Clock,
        answers: SharedAnswers | None = None,
        meter: Meter | None = None,
        explaining: Explaining | None = None,
    ) -> None:
        self._answers = answers
        self._explaining = explaining
        self._replay_scope = f"replay:{use_case}"
        self._admission = admission
        self._batcher = batcher
        self._rules = batcher.twin()
        self._room = room
        self._patience_s = patience_s
        self._clock = clock
        self._idempotency = Idempotency(clock)
        self._meter = meter or Meter()

    @property
    def replayed(self) -> int:
        """Calls answered with the first answer to their key."""
        return self._idempotency.replayed

    async def once(self, request: Request, principal: Principal, call: DecisionCall, encode: Encode) -> Response:
        """Decide, once per idempotency key; raises what refuses the call."""
        key = request.idempotency_key or call.id
        if key is None:
            return await self._decide(request, principal, call, encode)
        # the same rows with and without reasons are two questions
        body = request.body + b"\0explain" if call.explain else request.body
        first = self._idempotency.claim(principal.sub, key, body)
        if first is not None:
            try:
                return await asyncio.shield(first)
            except asyncio.CancelledError:
                if not first.cancelled():
                    raise
                raise Unavailable("the first request with this key failed", retry_after_s=1.0) from None
        response: Response | None = None
        claim: Claim | None = None
        try:
            if self._answers is not None:
                found = await self._answers.claim(principal.sub, key, body)
                if isinstance(found, Response):
                    self._idempotency.replayed += 1
                    response = found
                    return response
                claim = found
            response = await self._decide(request, principal, call, encode)
            if claim is not None:
                await claim.keep(response)
        finally:
            self._idempotency.settle(principal.sub, key, response)
            if claim is not None and response is None:
                claim.release()
        return response

    def start(self, exchange: Exchange, principal: Principal, call: DecisionCall, encode: Encode) -> None:
        """Decide a call without a key; `exchange` gets the answer, or the error. Raises what refuses the call."""
        batcher, work, priority = self._admitted(principal, call, exchange.request_id, None)
        batcher.submit_to(_Reply(exchange, work, encode, self._encoded), work, priority)

    async def _decide(self, request: Request, principal: Principal, call: DecisionCall, encode: Encode) -> Response:
        if call.explain:
            return await self._explain(request, principal, call, encode)
        batcher, work, priority = self._admitted(principal, call, request.request_id, request.trace)
        answer = await batcher.submit(work, priority)
        return self._encoded(answer, work, encode, call.id or request.request_id)

    async def _explain(self, request: Request, principal: Principal, call: DecisionCall, encode: Encode) -> Response:
        """Decide and give reasons; what keeps them away for long refuses the call before it is decided."""
        explaining = self._explaining
        if explaining is None:
            raise InvalidValue(EXPLAIN, "this application gives no reasons", hint="leave it out")
        with explaining.place():
            await explaining.ready(self._patience(call))
            batcher, work, priority = self._admitted(principal, call, request.request_id, request.trace)
            answer = await batcher.submit(work, priority)
            decisions = await explaining.explain(answer, work, principal)
        told = Answer(answer.model_version, list(decisions))
        return self._encoded(told, work, encode, call.id or request.request_id)

    def _admitted(
        self, principal: Principal, call: DecisionCall, request_id: str, trace: RequestTrace | None
    ) -> tuple[Batcher[Call, Answer], Call, Priority]:
        """Return the queue, the work and its class; raise what refuses the call."""
        if call.replayed and self._replay_scope not in principal.scopes:
            raise Forbidden(
                f"{principal.sub} lacks the scope {self._replay_scope}, which as_of and event_time need",
                hint="leave the time out: the decision is made for now",
            )
        self._room()
        batcher = self._batcher
        rows = len(call.rows)
        left_s = self._patience(call)
        priority = priority_of(principal.scopes, replayed=call.replayed)
        extra = rows * EXTRA_ROWS if call.explain else 0
        verdict = self._admission.admit(
            principal.sub, rows, batcher, left_s=left_s, priority=priority, size=call.size, extra=extra
        )
        if verdict is Verdict.FALLBACK:  # by a queue of its own: it shall not wait for what it could not wait for
            batcher = self._rules
            self._admission.require_room(rows, batcher)
        arrived = self._clock.monotonic()
        work = Call(
            rows=call.rows,
            sub=principal.sub,
            request_id=request_id,
            deadline=arrived + left_s,
            as_of=call.as_of,
            replayed=call.replayed,
            rules_only=verdict is Verdict.FALLBACK,
            arrived=arrived,
            trace=trace,
            explain=call.explain,
        )
        return batcher, work, priority

    def _patience(self, call: DecisionCall) -> float:
        return self._patience_s if call.patience_s is None else min(call.patience_s, self._patience_s)

    def _encoded(self, answer: Answer, work: Call, encode: Encode, name: str) -> Response:
        start = self._clock.monotonic()
        response = encode(DecisionsBody(name, answer.model_version, answer.decisions))
        end = self._clock.monotonic()
        self._meter.notes.encode.append(end - start)
        if work.trace is not None:
            work.trace.stage("encode", start, end)
        return response


@dataclass(slots=True)
class _Reply:
    """What a batch tells instead of a future: it writes the answer at once, on the batcher's own turn."""

    exchange: Exchange
    work: Call
    encode: Encode
    encoded: Callable[[Answer, Call, Encode, str], Response]

    def done(self) -> bool:
        """Whether the caller has gone, or has its answer."""
        return self.exchange.over

    def set_result(self, answer: Answer, /) -> None:
        """Answer."""
        try:
            response = self.encoded(answer, self.work, self.encode, self.work.request_id)
        except Exception as error:
            self.exchange.fail(error)
        else:
            self.exchange.send(response)

    def set_exception(self, error: Exception, /) -> None:
        """Refuse."""
        self.exchange.fail(error)
