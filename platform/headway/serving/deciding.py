"""One decision call behind its decoding: once per idempotency key, admitted, batched. Every protocol ends here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headway.core.clock import Clock
from headway.core.errors import Forbidden, Unavailable
from headway.core.types import Principal
from headway.serving.admission import Admission, Verdict
from headway.serving.batching import Batcher
from headway.serving.http import Request, Response
from headway.serving.idempotency import Idempotency
from headway.serving.protocol import DecisionCall, DecisionsBody
from headway.serving.work import Answer, Call

_PRIORITY = "priority:high"
Encode = Callable[[DecisionsBody], Response]


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
    ) -> None:
        self._replay_scope = f"replay:{use_case}"
        self._admission = admission
        self._batcher = batcher
        self._room = room
        self._patience_s = patience_s
        self._clock = clock
        self._idempotency = Idempotency(clock)

    async def once(self, request: Request, principal: Principal, call: DecisionCall, encode: Encode) -> Response:
        """Decide, once per idempotency key; raises what refuses the call."""
        key = request.idempotency_key or call.id
        if key is None:
            return await self._decide(request, principal, call, encode)
        first = self._idempotency.claim(principal.sub, key, request.body)
        if first is not None:
            try:
                return await asyncio.shield(first)
            except asyncio.CancelledError:
                if not first.cancelled():
                    raise
                raise Unavailable("the first request with this key failed", retry_after_s=1.0) from None
        response: Response | None = None
        try:
            response = await self._decide(request, principal, call, encode)
        finally:
            self._idempotency.settle(principal.sub, key, response)
        return response

    async def _decide(self, request: Request, principal: Principal, call: DecisionCall, encode: Encode) -> Response:
        if call.replayed and self._replay_scope not in principal.scopes:
            raise Forbidden(
                f"{principal.sub} lacks the scope {self._replay_scope}, which as_of and event_time need",
                hint="leave the time out: the decision is made for now",
            )
        self._room()
        batcher = self._batcher
        verdict = self._admission.admit(
            principal.sub,
            len(call.rows),
            queued_rows=batcher.queued_rows,
            wait_s=batcher.wait_s(),
            priority=_PRIORITY in principal.scopes,
        )
        patience_s = self._patience_s if call.patience_s is None else min(call.patience_s, self._patience_s)
        answer = await batcher.submit(
            Call(
                rows=call.rows,
                sub=principal.sub,
                request_id=request.request_id,
                deadline=self._clock.monotonic() + patience_s,
                as_of=call.as_of,
                replayed=call.replayed,
                rules_only=verdict is Verdict.FALLBACK,
            )
        )
        return encode(DecisionsBody(call.id or request.request_id, answer.model_version, answer.decisions))
