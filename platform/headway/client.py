"""The client of application developers: decisions, outcomes and events over HTTP or a Ray handle, errors as ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from headway.core.errors import (
    CapacityError,
    Conflict,
    Forbidden,
    HeadwayError,
    InvalidValue,
    Malformed,
    NotFound,
    PlatformError,
    QuotaExceeded,
    TooLarge,
    Unauthenticated,
    Unavailable,
    rebuild,
)

Token = str | Callable[[], str]
_TIMEOUT_S = 10.0
_RETRY_S = 1.0
"""Where nobody says when to come back."""


class Reason(msgspec.Struct, frozen=True):
    """One feature's part in a decision."""

    feature: str
    name: str
    """In words."""
    value: float | None
    withheld: bool
    contribution: float
    share: float
    direction: str
    """raises | lowers."""


class Explanation(msgspec.Struct, frozen=True):
    """How reasons were found: `base` + contributions + `others` = `margin`."""

    method: str
    unit: str = ""
    base: float | None = None
    others: float | None = None
    margin: float | None = None
    why: str = ""


class Decision(msgspec.Struct, frozen=True):
    """One answer."""

    decision_id: str
    score: float
    label: str
    arm: str
    degraded: list[str] = []
    reasons: list[Reason] = []
    """Where they were asked for: what moved the score most, greatest first."""
    explanation: Explanation | None = None
    """How the reasons were found, or why there are none."""


class Decisions(msgspec.Struct, frozen=True):
    """The answers to the rows of one request, in their order."""

    id: str
    model_version: str
    decisions: list[Decision]


class OutcomeCounts(msgspec.Struct, frozen=True):
    """What happened to posted outcomes."""

    accepted: int
    duplicate: int
    unknown: int


class EventCount(msgspec.Struct, frozen=True):
    """How many posted events the stream has."""

    accepted: int


class Transport(Protocol):
    """How a request travels."""

    def send(self, method: str, path: str, body: bytes, *, token: str, key: str | None = None) -> tuple[int, bytes]:
        """Return status and body; `path` is relative to the application."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class HttpTransport:
    """Keep-alive HTTP to `<url>/<route>`; the route is a use case's name, or `v1/events`."""

    def __init__(self, url: str, route: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        import httpx

        self._base = f"{url.rstrip('/')}/{route}"
        self._unreachable = httpx.HTTPError
        self._client = httpx.Client(timeout=timeout_s, trust_env=False)

    def send(self, method: str, path: str, body: bytes, *, token: str, key: str | None = None) -> tuple[int, bytes]:
        """Return status and body; Unavailable if nobody answers."""
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = key
        try:
            answer = self._client.request(method, self._base + path, content=body, headers=headers)
        except self._unreachable as error:
            raise Unavailable(
                f"{self._base} does not answer: {error}", retry_after_s=_RETRY_S, hint="headway status"
            ) from error
        return answer.status_code, answer.content

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class _Caller:
    """Sends requests with a token, and raises what they are refused with."""

    def _open(self, transport: Transport, token: Token) -> None:
        self._transport = transport
        self._token = token

    def close(self) -> None:
        """Let go of connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _bearer(self) -> str:
        return self._token() if callable(self._token) else self._token

    def _send(self, method: str, path: str, body: bytes, key: str | None) -> bytes:
        status, content = self._transport.send(method, path, body, token=self._bearer(), key=key)
        if status != 200:
            raise error_from(status, content)
        return content


class EventClient(_Caller):
    """Events of sources, for their streams.

    ```python
    with EventClient("http://127.0.0.1:8000", token=token) as client:
        client.post("transactions", [{"transaction_id": 1, "customer_id": 1, "terminal_id": 7, "amount": 12.5,
                                      "event_time": "2026-01-31T12:00:00Z"}])
    ```
    """

    def __init__(self, url: str, *, token: Token, timeout_s: float = _TIMEOUT_S) -> None:
        self._open(HttpTransport(url, "v1/events", timeout_s=timeout_s), token)

    @classmethod
    def from_ray(cls, *, token: Token, timeout_s: float = _TIMEOUT_S) -> EventClient:
        """Return a client that calls replicas through a Ray handle; the process must be connected to the cluster."""
        from headway.serving.handle import HandleTransport

        client = cls.__new__(cls)
        client._open(HandleTransport("events", timeout_s=timeout_s), token)
        return client

    def post(self, source: str, events: Sequence[Mapping[str, Any]]) -> int:
        """Append events to a source's stream and return how many it took: all of them.

        Raises the Headway error that the service answered with; after any of them, or none at all because the
        connection broke, the same events may be posted again: an event id counts once.
        """
        body = msgspec.json.encode({"events": [dict(event) for event in events]})
        return msgspec.json.decode(self._send("POST", f"/{source}", body, None), type=EventCount).accepted


class Client(_Caller):
    """Decisions of one use case.

    ```python
    with Client("http://127.0.0.1:8000", "fraud", token=token) as client:
        answer = client.decide([{"customer_id": 1, "terminal_id": 7, "amount": 12.5}])
    ```
    """

    def __init__(self, url: str, use_case: str, *, token: Token, timeout_s: float = _TIMEOUT_S) -> None:
        self._begin(HttpTransport(url, use_case, timeout_s=timeout_s), use_case, token)

    @classmethod
    def from_ray(cls, use_case: str, *, token: Token, timeout_s: float = _TIMEOUT_S) -> Client:
        """Return a client that calls replicas through a Ray handle; the process must be connected to the cluster."""
        from headway.serving.handle import HandleTransport

        client = cls.__new__(cls)
        client._begin(HandleTransport(use_case, timeout_s=timeout_s), use_case, token)
        return client

    def _begin(self, transport: Transport, use_case: str, token: Token) -> None:
        self._open(transport, token)
        self._use_case = use_case

    def decide(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        request_id: str | None = None,
        as_of: str | int | None = None,
        idempotency_key: str | None = None,
        explain: bool = False,
    ) -> Decisions:
        """Return one decision per row, with `explain` its reasons too, which cost ten times as much of the limits.

        `as_of` (RFC 3339 or UTC microseconds) needs the scope `replay:<use case>`. The same `idempotency_key` and rows
        get the first answer again. Raises the Headway error that the service answered with.
        """
        body: dict[str, Any] = {"rows": [dict(row) for row in rows]}
        if request_id is not None:
            body["id"] = request_id
        if as_of is not None:
            body["as_of"] = as_of
        path = "/v1/decisions?explain=true" if explain else "/v1/decisions"
        content = self._send("POST", path, msgspec.json.encode(body), idempotency_key)
        return msgspec.json.decode(content, type=Decisions)

    def outcomes(self, rows: Sequence[Mapping[str, Any]]) -> OutcomeCounts:
        """Report what became of decisions: rows of decision_id, label, event_time and, in replays, known_time."""
        body = msgspec.json.encode({"outcomes": [dict(row) for row in rows]})
        return msgspec.json.decode(self._send("POST", "/v1/outcomes", body, None), type=OutcomeCounts)

    def infer(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Send Open Inference Protocol tensors and return the decoded answer."""
        body = msgspec.json.encode({"inputs": [dict(tensor) for tensor in inputs]})
        answer: dict[str, Any] = msgspec.json.decode(
            self._send("POST", f"/v2/models/{self._use_case}/infer", body, None)
        )
        return answer

    def ready(self) -> bool:
        """Say whether a model serves."""
        status, _ = self._transport.send("GET", "/v2/health/ready", b"", token=self._bearer())
        return status == 200


class _Body(msgspec.Struct):
    error: str = ""
    code: str | None = None
    field: str | None = None
    retry_after_s: float = _RETRY_S


_KINDS: dict[int, type[HeadwayError]] = {
    400: Malformed,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidValue,
    429: QuotaExceeded,
    503: Unavailable,
}


def error_from(status: int, content: bytes) -> HeadwayError:
    """Return the error of an answer that is no success, with the code, field and waiting time that it names."""
    try:
        body = msgspec.json.decode(content, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        body = _Body(error=f"the service answered {status}: {content[:200].decode(errors='replace')}")
    kind = _KINDS.get(status, PlatformError)
    state: dict[str, object] = {} if body.code is None else {"code": body.code}
    if issubclass(kind, CapacityError):
        state["retry_after_s"] = body.retry_after_s
    return rebuild(kind, body.error, body.field, None, state)
