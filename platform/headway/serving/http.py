"""A request and a response as plain values, so that HTTP and Ray handle calls go through the same code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headway.serving.tracing import RequestTrace


@dataclass(frozen=True, slots=True)
class Request:
    """One call, already read; `path` is relative to the application's route prefix."""

    method: str
    path: str
    body: bytes
    token: str | None = None
    """Bearer token, without the word."""
    request_id: str = ""
    idempotency_key: str | None = None
    content_type: str = "application/json"
    header_length: int | None = None
    """Bytes of the body that are JSON, raw tensors behind them (`Inference-Header-Content-Length`); None: all."""
    trace: RequestTrace | None = None
    """Where the call is traced."""
    query: str = ""
    """What stands behind the path's question mark."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Beyond content-type, content-length and x-request-id."""
    content_type: bytes = b"application/json"
