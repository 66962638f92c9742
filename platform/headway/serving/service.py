"""One use case behind its paths: authenticate, decode, admit, batch, encode. HTTP and handle calls both end here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, Protocol

import msgspec

from headway.core.clock import Clock
from headway.core.errors import Forbidden, HeadwayError, InvalidValue, NotFound, Unauthenticated, Unavailable
from headway.core.ids import uuid7
from headway.core.types import Principal
from headway.serving.admission import Admission, Verdict
from headway.serving.batching import Batcher
from headway.serving.errors import error_response
from headway.serving.http import Request, Response
from headway.serving.idempotency import Idempotency
from headway.serving.inference import InferenceProtocol
from headway.serving.outcomes import Outcomes
from headway.serving.protocol import DecisionCall, DecisionDecoder, DecisionsBody, decode_outcomes
from headway.serving.schema import DecisionSchema
from headway.serving.terms import Terms
from headway.serving.work import Answer, Call

_LOG = logging.getLogger(__name__)
_WAIT_FACTOR = 20.0
_LONGEST_WAIT_S = 5.0
_PRIORITY = "priority:high"


class Verifier(Protocol):
    """Checks tokens (`headway.governance.identity.TokenVerifier`)."""

    def verify(self, token: str) -> Principal:
        """Return the principal or raise Unauthenticated."""
        ...


class Readiness(Protocol):
    """Says what serves (`headway.serving.host.ModelHost`)."""

    @property
    def ready(self) -> bool:
        """Whether a champion serves."""
        ...

    @property
    def state(self) -> Any:
        """Generation, champion, previous, error."""
        ...


class DecisionService:
    """The requests of one use case; lives on one event loop."""

    def __init__(
        self,
        use_case: str,
        *,
        schema: DecisionSchema,
        terms: Terms,
        verifier: Verifier,
        batcher: Batcher[Call, Answer],
        outcomes: Outcomes,
        host: Readiness,
        room: Callable[[], None],
        clock: Clock,
        executor: Executor | None = None,
    ) -> None:
        self.use_case = use_case
        self._terms = terms
        self._verifier = verifier
        self._batcher = batcher
        self._outcomes = outcomes
        self._host = host
        self._room = room
        self._clock = clock
        self._executor = executor
        self._decoder = DecisionDecoder(schema)
        self._inference = InferenceProtocol(use_case, schema)
        self._admission = Admission(terms.admission, clock)
        self._idempotency = Idempotency(clock)
        self._encoder = msgspec.json.Encoder()
        self._patience_s = min(_LONGEST_WAIT_S, terms.admission.deadline_s * _WAIT_FACTOR)
        self._decide_scope = f"decide:{use_case}"
        self._routes: dict[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {
            ("POST", "/v1/decisions"): self._decisions,
            ("POST", "/v1/outcomes"): self._take_outcomes,
            ("POST", f"/v2/models/{use_case}/infer"): self._infer,
            ("GET", "/v2"): self._server,
            ("GET", "/v2/"): self._server,
            ("GET", "/v2/health/live"): self._live,
            ("GET", "/v2/health/ready"): self._ready,
        }

    async def respond(self, request: Request) -> Response:
        """Answer one request; never raises but for cancellation."""
        try:
            handler = self._routes.get((request.method, request.path))
            if handler is not None:
                return await handler(request)
            return await self._model_path(request)
        except HeadwayError as error:
            return self._failed(error, request)
        except Exception as error:
            # the text may hold the caller's data: the log names the kind and the place, the answer neither
            _LOG.error("request %s failed: %s", request.request_id, type(error).__name__, exc_info=True)
            return self._failed(error, request)

    def _failed(self, error: Exception, request: Request) -> Response:
        return error_response(error, request.request_id, inference=request.path.startswith("/v2/"))

    async def _decisions(self, request: Request) -> Response:
        principal = self._principal(request, self._decide_scope)
        call = self._decoder.decode(request.body)
        return await self._once(request, principal, call, self._encode)

    async def _infer(self, request: Request) -> Response:
        principal = self._principal(request, self._decide_scope)
        if request.binary_header:
            raise InvalidValue(
                "inference-header-content-length",
                "binary tensors are not served yet",
                hint="send JSON tensors: binary_data=False",
            )
        call, outputs = self._inference.decode(request.body)
        return await self._once(request, principal, call, lambda body: self._inference.encode(body, outputs))

    async def _once(
        self, request: Request, principal: Principal, call: DecisionCall, encode: Callable[[DecisionsBody], bytes]
    ) -> Response:
        """Decide, once per idempotency key."""
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

    async def _decide(
        self, request: Request, principal: Principal, call: DecisionCall, encode: Callable[[DecisionsBody], bytes]
    ) -> Response:
        if call.replayed and f"replay:{self.use_case}" not in principal.scopes:
            raise Forbidden(
                f"{principal.sub} lacks the scope replay:{self.use_case}, which as_of and event_time need",
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
        answer = await batcher.submit(
            Call(
                rows=call.rows,
                sub=principal.sub,
                request_id=request.request_id,
                deadline=self._clock.monotonic() + self._patience_s,
                as_of=call.as_of,
                replayed=call.replayed,
                rules_only=verdict is Verdict.FALLBACK,
            )
        )
        body = DecisionsBody(call.id or request.request_id, answer.model_version, answer.decisions)
        return Response(200, encode(body))

    def _encode(self, body: DecisionsBody) -> bytes:
        return self._encoder.encode(body)

    async def _take_outcomes(self, request: Request) -> Response:
        principal = self._principal(request, f"outcomes:{self.use_case}")
        rows = decode_outcomes(request.body)
        may_replay = f"replay:{self.use_case}" in principal.scopes
        answer = await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: self._outcomes.take(rows, principal.sub, may_replay=may_replay)
        )
        return Response(200, self._encoder.encode(answer))

    async def _live(self, _: Request) -> Response:
        return Response(200, b'{"live":true}')

    async def _ready(self, _: Request) -> Response:
        return self._readiness()

    async def _server(self, request: Request) -> Response:
        self._principal(request, self._decide_scope)
        return Response(200, self._encoder.encode(self._inference.server()))

    async def _model_path(self, request: Request) -> Response:
        """Answer `/v2/models/<model>[/versions/<v>][/ready|/infer]`, or say what there is."""
        parts = request.path.strip("/").split("/")
        if parts[:2] != ["v2", "models"] or len(parts) < 3:
            known = sorted(f"{method} {path}" for method, path in self._routes if not path.endswith("/"))
            raise NotFound("path", f"{request.method} {request.path}", known=known)
        if parts[2] != self.use_case:
            raise NotFound("model", parts[2], known=[self.use_case])
        rest = parts[3:]
        if rest[:1] == ["versions"] and len(rest) >= 2:
            champion = self._host.state.champion
            if rest[1] != champion:
                raise NotFound("version", rest[1], known=[champion] if champion else [])
            rest = rest[2:]
        if rest == ["infer"] and request.method == "POST":
            return await self._infer(request)
        if rest == ["ready"] and request.method == "GET":
            return self._readiness()
        if not rest and request.method == "GET":
            self._principal(request, self._decide_scope)
            champion = self._host.state.champion
            metadata = self._inference.metadata([champion] if champion else [])
            return Response(200, self._encoder.encode(metadata))
        raise NotFound("path", f"{request.method} {request.path}")

    def _readiness(self) -> Response:
        state = self._host.state
        body = {
            "ready": self._host.ready,
            "name": self.use_case,
            "version": state.champion,
            "generation": state.generation,
            "error": state.error,
        }
        return Response(200 if self._host.ready else 503, self._encoder.encode(body))

    def _principal(self, request: Request, scope: str) -> Principal:
        if request.token is None:
            raise Unauthenticated("no bearer token", hint="send authorization: Bearer …; headway token prints one")
        principal = self._verifier.verify(request.token)
        if scope not in principal.scopes:
            raise Forbidden(
                f"{principal.sub} lacks the scope {scope}", hint="ask for a token with that scope: headway token"
            )
        if principal.purpose not in self._terms.purposes:
            raise Forbidden(
                f"the purpose {principal.purpose!r} is not among those of the contract: "
                f"{', '.join(self._terms.purposes)}",
                hint="headway token --purpose P",
            )
        return principal

    def request_id(self) -> str:
        """Return a fresh request id."""
        return uuid7(self._clock.now())
