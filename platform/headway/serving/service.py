"""One use case behind its paths: authenticate, decode, admit, batch, encode. HTTP and handle calls both end here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

import msgspec

from headway.core.clock import Clock
from headway.core.errors import Forbidden, InputError, InvalidValue, NotFound, Unauthenticated, Unavailable
from headway.core.ids import Ids
from headway.core.types import Principal
from headway.serving.admission import Admission
from headway.serving.batching import Batcher
from headway.serving.breaker import Breaker, State
from headway.serving.deciding import Decider, Encode, Exchange
from headway.serving.errors import error_response, log_unexpected
from headway.serving.explaining import Explaining
from headway.serving.http import Request, Response
from headway.serving.inference import InferenceProtocol, ModelPath
from headway.serving.invocations import InvocationsProtocol
from headway.serving.limiter import Gcra
from headway.serving.meter import Meter
from headway.serving.observer import Observer
from headway.serving.openapi import document, page
from headway.serving.outcomes import Outcomes
from headway.serving.protocol import DecisionCall, DecisionDecoder, DecisionsBody, decode_outcomes, wants_reasons
from headway.serving.readiness import Readiness
from headway.serving.schema import DecisionSchema
from headway.serving.shared_answers import SharedAnswers
from headway.serving.terms import Terms
from headway.serving.tracing import RequestTrace, Tracer
from headway.serving.work import Answer, Call

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_OUTCOMES_S = 5.0
"""Longest wait for outcomes to be kept; one store that stands still would let every post wait for those before it."""


class Verifier(Protocol):
    """Checks tokens (`headway.governance.identity.TokenVerifier`)."""

    def verify(self, token: str) -> Principal:
        """Return the principal or raise Unauthenticated."""
        ...


class Host(Protocol):
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
        host: Host,
        room: Callable[[], None],
        clock: Clock,
        executor: Executor | None = None,
        admission: Admission | None = None,
        answers: SharedAnswers | None = None,
        breakers: Callable[[], Sequence[Breaker]] = tuple,
        meter: Meter | None = None,
        tracer: Tracer | None = None,
        readiness: Readiness | None = None,
        explaining: Explaining | None = None,
    ) -> None:
        self.use_case = use_case
        self._terms = terms
        self._verifier = verifier
        self._outcomes = outcomes
        self._host = host
        self.readiness = readiness or Readiness({"model": lambda: None if host.ready else "no version serves"})
        self._clock = clock
        self._executor = executor
        self._meter = meter or Meter()
        self.observer = Observer(self._meter, clock, tracer)
        self._decoder = DecisionDecoder(schema)
        self._inference = InferenceProtocol(use_case, schema)
        self._invocations = InvocationsProtocol(schema)
        self._document = document(use_case, schema)
        self.admission = admission or Admission(terms.admission, clock)
        """One for every way in."""
        self.decider = Decider(
            use_case,
            admission=self.admission,
            batcher=batcher,
            room=room,
            patience_s=terms.patience_s,
            clock=clock,
            answers=answers,
            meter=self._meter,
            explaining=explaining,
        )
        self._breakers = breakers
        self._traced = tracer is not None
        self._lanes: dict[str, Callable[[bytes], tuple[DecisionCall, Encode]]] = {
            "/v1/decisions": self._read_decisions,
            f"/v2/models/{use_case}/infer": self._read_infer,
        }
        self._ids = Ids()
        self._encoder = msgspec.json.Encoder()
        self._waiting_outcomes = 0
        self._decide_scope = f"decide:{use_case}"
        self._scopes = {
            "/v1/decisions": self._decide_scope,
            "/v1/outcomes": f"outcomes:{use_case}",
            "/invocations": self._decide_scope,
            "/v2/repository/index": self._decide_scope,
        }
        self._routes: dict[tuple[str, str], Callable[[Request, Principal | None], Awaitable[Response]]] = {
            ("POST", "/v1/decisions"): self._decisions,
            ("POST", "/v1/outcomes"): self._take_outcomes,
            ("POST", "/invocations"): self._invoke,
            ("POST", "/v2/repository/index"): self._index,
            ("GET", "/docs"): self._docs,
            ("GET", "/openapi.json"): self._openapi,
            ("GET", "/v2"): self._server,
            ("GET", "/v2/"): self._server,
            ("GET", "/v2/health/live"): self._live,
            ("GET", "/v2/health/ready"): self._ready,
        }

    @property
    def inference(self) -> InferenceProtocol:
        """What describes server and model."""
        return self._inference

    @property
    def host(self) -> Host:
        """What serves."""
        return self._host

    @property
    def deadline_s(self) -> float:
        """Longest time in the service that the contract allows, seconds."""
        return self._terms.admission.deadline_s

    def decides(self, token: str | None) -> Principal:
        """Return who asks for decisions; raises Unauthenticated or Forbidden, and what the verifier raises."""
        return self._principal(token, self._decide_scope)

    def caller(self, method: str, path: str, token: str | None) -> Principal | None:
        """Return who asks, so that nothing of a stranger's body is kept; None where the path takes no body.

        Raises Unauthenticated or Forbidden, and what the verifier raises.
        """
        if method != "POST":
            return None
        scope = self._scopes.get(path)
        if scope is None:
            model = ModelPath.of(path)
            if model is None or model.name != self.use_case:
                return None
            scope = self._decide_scope
        return self._principal(token, scope)

    async def respond(self, request: Request, caller: Principal | None = None) -> Response:
        """Answer one request; never raises but for cancellation. `caller`: what the method of that name returned."""
        try:
            handler = self._routes.get((request.method, request.path))
            if handler is not None:
                return await handler(request, caller)
            return await self._model_path(request, caller)
        except Exception as error:
            return self.failed(error, request.request_id, request.path, request.trace)

    def failed(self, error: Exception, request_id: str, path: str, trace: RequestTrace | None = None) -> Response:
        """Return the answer to a failed request."""
        log_unexpected(_LOG, error, request_id, trace.context.trace_id.hex() if trace else "")
        return error_response(error, request_id, inference=path.startswith("/v2/"))

    @property
    def lanes(self) -> tuple[str, ...]:
        """Paths of POST requests that `begin` takes; none where requests are traced."""
        return () if self._traced else tuple(self._lanes)

    def begin(self, path: str, token: str | None, body: bytes, exchange: Exchange) -> bool:
        """Begin to answer a whole request of a lane; False: it needs `respond`, for its answer is kept under a key."""
        try:
            principal = self._principal(token, self._decide_scope)
            call, encode = self.read(self.admission.decisions, principal, body, self._lanes[path])
            if call.id is not None or call.explain:
                return False
            self.decider.start(exchange, principal, call, encode)
        except Exception as error:
            exchange.fail(error)
        return True

    async def _decisions(self, request: Request, caller: Principal | None) -> Response:
        principal = caller or self._principal(request.token, self._decide_scope)
        explain = bool(request.query) and wants_reasons(request.query)
        call, encode = self.read(self.admission.decisions, principal, request.body, self._read_decisions, request.trace)
        call.explain = explain
        return await self.decider.once(request, principal, call, encode)

    async def _infer(self, request: Request, caller: Principal | None) -> Response:
        principal = caller or self._principal(request.token, self._decide_scope)
        read = self.read(
            self.admission.decisions, principal, request.body, self._read_infer, request.trace, request.header_length
        )
        return await self.decider.once(request, principal, *read)

    async def _invoke(self, request: Request, caller: Principal | None) -> Response:
        principal = caller or self._principal(request.token, self._decide_scope)
        if request.content_type != "application/json":
            raise InvalidValue("content-type", f"{request.content_type} is not taken", hint="send application/json")
        start = self._clock.monotonic()
        call = self.read(self.admission.decisions, principal, request.body, self._invocations.decode)
        self.decoded(start, request.trace)
        return await self.decider.once(request, principal, call, self._invocations.encode)

    def read(self, limit: Gcra, principal: Principal, body: bytes, read: Callable[..., T], *rest: Any) -> T:
        """Read a body whose sender has credit left; one that cannot be used is charged too.

        Raises QuotaExceeded, and what `read(body, *rest)` raises.
        """
        self.admission.require_credit(limit, principal.sub)
        try:
            return read(body, *rest)
        except InputError:
            self.admission.charge_unusable(limit, principal.sub, len(body))
            raise

    def _read_decisions(self, body: bytes, trace: RequestTrace | None = None) -> tuple[DecisionCall, Encode]:
        start = self._clock.monotonic()
        call = self._decoder.decode(body)
        self.decoded(start, trace)
        return call, self._encode

    def _read_infer(
        self, body: bytes, trace: RequestTrace | None = None, header_length: int | None = None
    ) -> tuple[DecisionCall, Encode]:
        start = self._clock.monotonic()
        call, outputs = self._inference.decode(body, header_length)
        self.decoded(start, trace)
        return call, lambda answer: self._inference.encode(answer, outputs)

    def decoded(self, start: float, trace: RequestTrace | None) -> None:
        """Note what decoding took."""
        end = self._clock.monotonic()
        self._meter.notes.decode.append(end - start)
        if trace is not None:
            trace.stage("decode", start, end)

    def _encode(self, body: DecisionsBody) -> Response:
        return Response(200, self._encoder.encode(body))

    async def _take_outcomes(self, request: Request, caller: Principal | None) -> Response:
        principal = caller or self._principal(request.token, self._scopes["/v1/outcomes"])
        rows = self.read(self.admission.outcomes, principal, request.body, decode_outcomes)
        self.admission.admit_outcomes(principal.sub, len(rows), queued_rows=self._waiting_outcomes)
        may_replay = f"replay:{self.use_case}" in principal.scopes
        count = max(1, len(rows))
        self._waiting_outcomes += count
        try:
            async with asyncio.timeout(_OUTCOMES_S):
                answer = await asyncio.get_running_loop().run_in_executor(
                    self._executor, lambda: self._outcomes.take(rows, principal.sub, may_replay=may_replay)
                )
        except TimeoutError:
            raise Unavailable("the outcomes could not be kept in time", retry_after_s=1.0, hint="repeat them") from None
        finally:
            self._waiting_outcomes -= count
        return Response(200, self._encoder.encode(answer))

    async def _live(self, _: Request, __: Principal | None) -> Response:
        return Response(200, b'{"live":true}')

    async def _ready(self, _: Request, __: Principal | None) -> Response:
        return self._readiness()

    async def _server(self, request: Request, _: Principal | None) -> Response:
        self._principal(request.token, self._decide_scope)
        return Response(200, self._encoder.encode(self._inference.server()))

    async def _index(self, request: Request, caller: Principal | None) -> Response:
        if caller is None:
            self._principal(request.token, self._decide_scope)
        state = self._host.state
        ready_only = self._inference.ready_only(request.body)
        index = self._inference.index(state.champion if self._host.ready else None, state.error, ready_only=ready_only)
        return Response(200, self._encoder.encode(index))

    async def _docs(self, _: Request, __: Principal | None) -> Response:
        return Response(200, page(self._document), content_type=b"text/html; charset=utf-8")

    async def _openapi(self, _: Request, __: Principal | None) -> Response:
        return Response(200, self._encoder.encode(self._document))

    async def _model_path(self, request: Request, caller: Principal | None) -> Response:
        """Answer `/v2/models/<model>[/versions/<v>][/ready|/infer]`, or say what there is."""
        path = ModelPath.of(request.path)
        if path is None:
            known = sorted(f"{method} {path}" for method, path in self._routes if not path.endswith("/"))
            raise NotFound("path", f"{request.method} {request.path}", known=known)
        if path.name != self.use_case:
            raise NotFound("model", path.name, known=[self.use_case])
        champion = self._host.state.champion
        if path.version is not None and path.version != champion:
            raise NotFound("version", path.version, known=[champion] if champion else [])
        match request.method, path.act:
            case "POST", "infer":
                return await self._infer(request, caller)
            case "GET", "ready":
                return self._readiness()
            case "GET", "":
                self._principal(request.token, self._decide_scope)
                metadata = self._inference.metadata([champion] if champion else [])
                return Response(200, self._encoder.encode(metadata))
        raise NotFound("path", f"{request.method} {request.path}")

    def _readiness(self) -> Response:
        state = self._host.state
        parts = self.readiness.parts()
        ready = all(said == "ok" for said in parts.values())
        body = {
            "ready": ready,
            "name": self.use_case,
            "version": state.champion,
            "generation": state.generation,
            "error": None if state.error is None else "the routed version, or the record of it, cannot be used",
            "open": [breaker.name for breaker in self._breakers() if breaker.state is not State.CLOSED],
            "parts": parts,
        }
        return Response(200 if ready else 503, self._encoder.encode(body))

    def _principal(self, token: str | None, scope: str) -> Principal:
        if token is None:
            raise Unauthenticated("no bearer token", hint="send authorization: Bearer …; headway token prints one")
        principal = self._verifier.verify(token)
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
        return self._ids.make(self._clock.now())
