"""Notes every answered request, whatever way it came: the short way, HTTP, gRPC or a Ray handle, hook on or off.

Who goes before its request is whole is answered nothing and noted nowhere; events have no meter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headway.core.clock import Clock
from headway.serving.meter import Meter

if TYPE_CHECKING:
    from headway.serving.tracing import RequestTrace, Tracer

NO_HEADERS: Mapping[bytes, bytes] = {}


class Observer:
    """Notes requests in a meter and, where a collector is named, in traces."""

    def __init__(self, meter: Meter | None, clock: Clock, tracer: Tracer | None = None) -> None:
        self._answered = _nothing if meter is None else meter.answered
        self._monotonic = clock.monotonic
        self._tracer = tracer
        if meter is not None:
            meter.traces = tracer

    def arrived(self) -> float:
        """Return the time, in monotonic seconds."""
        return self._monotonic()

    def trace(self, headers: Mapping[bytes, bytes]) -> RequestTrace | None:
        """Return the trace of a request with these headers (lower-case names), None where it is not traced."""
        return None if self._tracer is None else self._tracer.begin(headers)

    def left(
        self,
        protocol: str,
        method: str,
        path: str,
        status: int,
        arrived: float,
        *,
        request_id: str = "",
        trace: RequestTrace | None = None,
    ) -> None:
        """Note that the answer is sent.

        Args:
            protocol: http | handle | grpc.
            method: Of HTTP.
            path: Below the application's prefix; gRPC names the HTTP path of the same call.
            status: Of HTTP; gRPC's, mapped to it.
            arrived: What `arrived` returned.
            request_id: As echoed.
            trace: What `trace` returned.
        """
        now = self._monotonic()
        self._answered(protocol, path, status, now - arrived)
        if trace is not None and self._tracer is not None:
            trace.name = f"{method} {path}"
            trace.start, trace.end = arrived, now
            trace.failed = status >= 500
            trace.attributes = {
                "http.request.method": method, "url.path": path, "http.response.status_code": status,
                "headway.protocol": protocol, "headway.request_id": request_id,
            }  # fmt: skip
            self._tracer.end(trace)


def _nothing(protocol: str, path: str, status: int, seconds: float) -> None:
    """Count nothing: nobody would collect it."""
