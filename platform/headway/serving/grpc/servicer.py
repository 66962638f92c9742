"""Answers the calls of one use case: who asks, for which model, decided as HTTP decides, refused as HTTP refuses.

Bytes in and bytes out, so the same object serves behind a gRPC server and behind Ray Serve's own request path.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from headway.core.errors import Malformed, NotFound, TooLarge, Unavailable
from headway.core.types import Principal
from headway.serving.admission import Admission
from headway.serving.deciding import Decider
from headway.serving.errors import GrpcStatus, grpc_status, log_unexpected, status_of
from headway.serving.gateway import BODY_LIMIT, LONGEST_ID, clean_id
from headway.serving.grpc.messages import METHODS, RESPONSES, parse
from headway.serving.grpc.protocol import EXTENSIONS, InferMessages, WantedOutputs
from headway.serving.http import Request, Response
from headway.serving.inference import InferenceProtocol
from headway.serving.limiter import Gcra
from headway.serving.observer import NO_HEADERS, Observer
from headway.serving.protocol import DecisionCall
from headway.serving.readiness import Readiness
from headway.serving.schema import DecisionSchema
from headway.serving.service import Host
from headway.serving.tracing import RequestTrace

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
OK = GrpcStatus("OK", "", ())
_GONE = 499
"""What is noted of a caller that did not wait."""
Metadata = Iterable[tuple[str, str | bytes]]


class Service(Protocol):
    """The use case behind every protocol (`headway.serving.service.DecisionService`)."""

    @property
    def decider(self) -> Decider:
        """What decides."""
        ...

    @property
    def observer(self) -> Observer:
        """Who notes what came and went."""
        ...

    @property
    def readiness(self) -> Readiness:
        """Whether a decision could be answered now."""
        ...

    @property
    def inference(self) -> InferenceProtocol:
        """What describes server and model."""
        ...

    @property
    def host(self) -> Host:
        """What serves."""
        ...

    @property
    def admission(self) -> Admission:
        """Who gets in."""
        ...

    @property
    def deadline_s(self) -> float:
        """Longest time in the service that the contract allows, seconds."""
        ...

    def decides(self, token: str | None) -> Principal:
        """Return who asks for decisions; raises what refuses the caller."""
        ...

    def read(self, limit: Gcra, principal: Principal, body: bytes, read: Callable[..., T], *rest: Any) -> T:
        """Read a body whose sender has credit left."""
        ...

    def decoded(self, start: float, trace: RequestTrace | None) -> None:
        """Note what decoding took, from a monotonic second on."""
        ...

    def request_id(self) -> str:
        """Return a fresh request id."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ends."""

    message: bytes
    status: GrpcStatus
    request_id: str
    trace: RequestTrace | None = None

    @property
    def trailing(self) -> tuple[tuple[str, str], ...]:
        """The trailing metadata."""
        traced = () if self.trace is None else (("traceresponse", self.trace.context.header),)
        return (("x-request-id", self.request_id), *traced, *self.status.trailing)


@dataclass(slots=True)
class _Caller:
    """What the metadata of a call says."""

    token: str | None = None
    key: str | None = None
    request_id: str | None = None
    context: Mapping[bytes, bytes] | None = None
    """Trace context as headers."""
    trace: RequestTrace | None = None


class InferenceServicer:
    """`inference.GRPCInferenceService` of one use case; lives on one event loop."""

    def __init__(self, use_case: str, schema: DecisionSchema, service: Service) -> None:
        self._use_case = use_case
        self._service = service
        self._messages = InferMessages(use_case, schema)
        self._keyed: set[asyncio.Task[Response]] = set()
        model = f"/v2/models/{use_case}"
        self._paths = {
            "ServerLive": ("GET", "/v2/health/live"),
            "ServerReady": ("GET", "/v2/health/ready"),
            "ModelReady": ("GET", f"{model}/ready"),
            "ServerMetadata": ("GET", "/v2"),
            "ModelMetadata": ("GET", model),
            "ModelInfer": ("POST", f"{model}/infer"),
            "RepositoryIndex": ("POST", "/v2/repository/index"),
        }
        """Method → the same call over HTTP, under which both are counted."""
        self._acts: dict[str, Callable[[bytes, _Caller, float | None], Awaitable[bytes]]] = {
            name: getattr(self, f"_{_snake(name)}") for name in METHODS
        }

    async def answer(self, method: str, message: bytes, metadata: Metadata, remaining_s: float | None) -> Reply:
        """Answer one call; never raises but for cancellation.

        Args:
            method: Name of the method, without its service.
            message: The request's bytes.
            metadata: Of the call.
            remaining_s: Seconds left of the caller's deadline; None: it has none.
        """
        observer = self._service.observer
        arrived = observer.arrived()
        caller, status, http = _Caller(), OK, 200
        answer = b""
        try:
            _read(metadata, caller)
            caller.trace = observer.trace(caller.context or NO_HEADERS)
            if caller.request_id is None:
                caller.request_id = self._service.request_id()
            if len(message) > BODY_LIMIT:
                raise TooLarge(f"more than {BODY_LIMIT} bytes", field="message", hint="split the request")
            answer = await self._acts[method](message, caller, remaining_s)
        except Exception as error:
            caller.request_id = caller.request_id or self._service.request_id()
            status, http = grpc_status(error), status_of(error, inference=True)
            log_unexpected(_LOG, error, caller.request_id, caller.trace.context.trace_id.hex() if caller.trace else "")
            if isinstance(error, Unavailable) and remaining_s is not None and remaining_s < self._service.deadline_s:
                http = _GONE  # the contract promises nothing to who waits for less than its latency
        except asyncio.CancelledError:
            http = _GONE
            raise
        finally:
            verb, path = self._paths[method]
            said = caller.request_id or ""
            observer.left("grpc", verb, path, http, arrived, request_id=said, trace=caller.trace)
        return Reply(answer, status, caller.request_id, caller.trace)

    async def _model_infer(self, message: bytes, caller: _Caller, remaining_s: float | None) -> bytes:
        service = self._service
        principal = service.decides(caller.token)
        start = service.observer.arrived()
        call, wanted = service.read(service.admission.decisions, principal, message, self._read, remaining_s)
        assert caller.request_id is not None
        asked = Request(
            method="POST",
            path=self._paths["ModelInfer"][1],
            body=message,
            token=caller.token,
            request_id=caller.request_id,
            idempotency_key=caller.key,
            trace=caller.trace,
        )
        service.decoded(start, asked.trace)
        work = service.decider.once(asked, principal, call, lambda body: self._messages.encode(body, wanted))
        if caller.key is None and call.id is None:
            return (await work).body
        # the answer to a key outlives its first caller: a retry after a deadline must find it
        task = asyncio.get_running_loop().create_task(work)
        self._keyed.add(task)
        task.add_done_callback(self._forget)
        return (await asyncio.shield(task)).body

    def _read(self, message: bytes, remaining_s: float | None) -> tuple[DecisionCall, WantedOutputs]:
        request = parse("ModelInfer", message)
        self._require_model(request.model_name, request.model_version, "model_name")
        call, wanted = self._messages.decode(request, remaining_s)
        call.size = len(message)
        return call, wanted

    async def _server_live(self, message: bytes, _: _Caller, __: float | None) -> bytes:
        parse("ServerLive", message)
        return _bytes("ServerLive", live=True)

    async def _server_ready(self, message: bytes, _: _Caller, __: float | None) -> bytes:
        parse("ServerReady", message)
        return _bytes("ServerReady", ready=self._service.readiness.ready)

    async def _model_ready(self, message: bytes, _: _Caller, __: float | None) -> bytes:
        asked = parse("ModelReady", message)
        self._require_model(asked.name, asked.version, "name")
        return _bytes("ModelReady", ready=self._service.readiness.ready)

    async def _server_metadata(self, message: bytes, caller: _Caller, _: float | None) -> bytes:
        self._service.decides(caller.token)
        parse("ServerMetadata", message)
        return _bytes("ServerMetadata", **{**self._service.inference.server(), "extensions": EXTENSIONS})

    async def _model_metadata(self, message: bytes, caller: _Caller, _: float | None) -> bytes:
        self._service.decides(caller.token)
        asked = parse("ModelMetadata", message)
        self._require_model(asked.name, asked.version, "name")
        champion = self._service.host.state.champion
        return _bytes("ModelMetadata", **self._service.inference.metadata([champion] if champion else []))

    async def _repository_index(self, message: bytes, caller: _Caller, _: float | None) -> bytes:
        self._service.decides(caller.token)
        asked = parse("RepositoryIndex", message)
        host = self._service.host
        champion = host.state.champion if host.ready else None
        index = self._service.inference.index(champion, host.state.error, ready_only=asked.ready)
        return _bytes("RepositoryIndex", models=index)

    def _require_model(self, name: str, version: str, field: str) -> None:
        if name != self._use_case:
            raise NotFound("model", name, known=[self._use_case], field=field)
        champion = self._service.host.state.champion
        if version and version != champion:
            raise NotFound("version", version, known=[champion] if champion else [], field="version")

    def _forget(self, task: asyncio.Task[Response]) -> None:
        self._keyed.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone: nobody else takes it


def _read(metadata: Metadata, caller: _Caller) -> None:
    """Take what concerns us; binary values do not."""
    for name, value in metadata:
        if isinstance(value, bytes):
            continue
        if name == "authorization":
            caller.token = value[7:].strip() if value[:7].lower() == "bearer " else None
        elif name == "x-request-id":
            caller.request_id = clean_id(value)
        elif name in ("traceparent", "tracestate"):
            caller.context = {**(caller.context or NO_HEADERS), name.encode(): value.encode("latin-1", "replace")}
        elif name == "idempotency-key":
            if not 0 < len(value) <= LONGEST_ID or not value.isascii():
                raise Malformed(f"not 1 to {LONGEST_ID} ASCII characters", field="idempotency-key")
            caller.key = value


def _bytes(method: str, **fields: Any) -> bytes:
    message: bytes = RESPONSES[method](**fields).SerializeToString()
    return message


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")
