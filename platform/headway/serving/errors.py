"""The one place where the error tree becomes HTTP: status, headers and a body that never holds a stack trace."""

from __future__ import annotations

import math

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

_STATUS: tuple[tuple[type[HeadwayError], int], ...] = (
    (TooLarge, 413),
    (NotFound, 404),
    (Conflict, 409),
    (InvalidValue, 422),
    (Malformed, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (QuotaExceeded, 429),
    (CapacityError, 503),
    (EvidenceError, 503),
    (DefinitionError, 500),
)
_INFERENCE_STATUS = {422: 400}
"""Open Inference Protocol: an infer request that cannot be used is 400."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """What a caller reads (INTERFACES §3)."""

    error: str
    code: str
    field: str | None = None
    request_id: str | None = None


def status_of(error: BaseException, *, inference: bool = False) -> int:
    """Return the HTTP status; what is not in the tree is 500."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return _INFERENCE_STATUS.get(status, status) if inference else status
    return 500


def error_response(error: BaseException, request_id: str, *, inference: bool = False) -> Response:
    """Return the answer to a failed request; an unexpected exception says nothing about our insides."""
    status = status_of(error, inference=inference)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, HeadwayError) and status != 500:
        message = error.message if error.hint is None else f"{error.message} ({error.hint})"
        if inference and error.field is not None:  # clients of the protocol show their users this text only
            message = f"{error.field}: {message}"
        body = ErrorBody(error=message, code=error.code, field=error.field, request_id=request_id)
        if isinstance(error, CapacityError):
            headers = ((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()),)
        elif status == 401:
            headers = ((b"www-authenticate", b"Bearer"),)
    else:
        body = ErrorBody(error="the request failed inside the service", code="internal", request_id=request_id)
    return Response(status=status, body=msgspec.json.encode(body), headers=headers)
