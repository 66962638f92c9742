"""The one place where the error tree becomes HTTP and gRPC: status and a message that never holds a stack trace."""

from __future__ import annotations

import copy
import logging
import math
import traceback
from typing import NamedTuple

import msgspec

from headway.core.errors import (
    CapacityError,
    Conflict,
    DefinitionError,
    EvidenceError,
    Forbidden,
    HeadwayError,
    InvalidValue,
    Malformed,
    NotFound,
    QuotaExceeded,
    TooLarge,
    Unauthenticated,
)
from headway.serving.http import Response

_STATUS: tuple[tuple[type[HeadwayError], int, str], ...] = (
    (TooLarge, 413, "INVALID_ARGUMENT"),
    (NotFound, 404, "NOT_FOUND"),
    (Conflict, 409, "ALREADY_EXISTS"),
    (InvalidValue, 422, "INVALID_ARGUMENT"),
    (Malformed, 400, "INVALID_ARGUMENT"),
    (Unauthenticated, 401, "UNAUTHENTICATED"),
    (Forbidden, 403, "PERMISSION_DENIED"),
    (QuotaExceeded, 429, "RESOURCE_EXHAUSTED"),
    (CapacityError, 503, "UNAVAILABLE"),
    (EvidenceError, 503, "UNAVAILABLE"),
    (DefinitionError, 500, "INTERNAL"),
)
"""Kind, HTTP status, gRPC code."""
_INFERENCE_STATUS = {422: 400}
"""Open Inference Protocol: an infer request that cannot be used is 400."""


_INSIDE = "the request failed inside the service"
_LONGEST_DETAILS = 1_000
"""Bytes of a gRPC message: it travels in the trailers, which have a few kilobytes."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """What a caller reads (INTERFACES §3)."""

    error: str
    code: str
    field: str | None = None
    request_id: str | None = None
    retry_after_s: float | None = None
    """With 429 and 503; `Retry-After` in whole seconds, and for callers who see no headers."""


def status_of(error: BaseException, *, inference: bool = False) -> int:
    """Return the HTTP status; what is not in the tree is 500."""
    for kind, status, _ in _STATUS:
        if isinstance(error, kind):
            return _INFERENCE_STATUS.get(status, status) if inference else status
    return 500


def error_response(error: BaseException, request_id: str, *, inference: bool = False) -> Response:
    """Return the answer to a failed request; an unexpected exception says nothing about our insides."""
    status = status_of(error, inference=inference)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, HeadwayError) and status != 500:
        message = _message(error, with_field=inference)
        body = ErrorBody(error=message, code=error.code, field=error.field, request_id=request_id)
        if isinstance(error, CapacityError):
            headers = ((b"retry-after", _seconds(error).encode()),)
            body.retry_after_s = round(error.retry_after_s, 3)
        elif status == 401:
            headers = ((b"www-authenticate", b"Bearer"),)
    else:
        body = ErrorBody(error=_INSIDE, code="internal", request_id=request_id)
    return Response(status=status, body=msgspec.json.encode(body), headers=headers)


class GrpcStatus(NamedTuple):
    """How a failed call ends."""

    code: str
    """Name of a grpc.StatusCode."""
    details: str
    trailing: tuple[tuple[str, str], ...]
    """Metadata: error-code and error-field as in the body of HTTP, retry-after in seconds."""


def grpc_status(error: BaseException) -> GrpcStatus:
    """Return the status of a failed call; an unexpected exception says nothing about our insides."""
    code = next((code for kind, _, code in _STATUS if isinstance(error, kind)), "INTERNAL")
    if not isinstance(error, HeadwayError) or code == "INTERNAL":
        return GrpcStatus("INTERNAL", _INSIDE, (("error-code", "internal"),))
    trailing = [("error-code", error.code)]
    if error.field is not None and error.field.isascii() and error.field.isprintable():
        trailing.append(("error-field", error.field[:_LONGEST_DETAILS]))
    if isinstance(error, CapacityError):
        trailing.append(("retry-after", _seconds(error)))
    details = _message(error, with_field=True).encode()[:_LONGEST_DETAILS].decode(errors="ignore")
    return GrpcStatus(code, details, tuple(trailing))


def _message(error: HeadwayError, *, with_field: bool) -> str:
    """Return the text and the way out; clients of the inference protocol show this only, so it names the field too."""
    text = error.message if error.hint is None else f"{error.message} ({error.hint})"
    return f"{error.field}: {text}" if with_field and error.field is not None else text


def _seconds(error: CapacityError) -> str:
    return str(max(1, math.ceil(error.retry_after_s)))


def own(error: Exception) -> Exception:
    """Return an exception per caller: one shared object would collect everybody's traceback."""
    if isinstance(error, HeadwayError):
        return copy.copy(error)
    ours = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
    ours.__cause__ = error
    return ours


def log_unexpected(log: logging.Logger, error: Exception, request_id: str, trace_id: str = "") -> None:
    """Log kind and place of an error that is not in the tree; its text may hold the caller's data, and is left out."""
    if not isinstance(error, HeadwayError):
        place = "".join(traceback.format_tb(error.__traceback__))
        extra = {"request_id": request_id, "trace_id": trace_id}
        kind = type(error.__cause__ or error).__name__
        log.error("request %s failed: %s\n%s", request_id, kind, place, extra=extra)
