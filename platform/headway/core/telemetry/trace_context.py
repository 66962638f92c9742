"""W3C Trace Context: whose trace a request belongs to, read from and written to `traceparent` and `tracestate`.

https://www.w3.org/TR/trace-context/: what is not well-formed is as if it had not come. Sampling is parent-based:
who called decides; of requests without a parent a share is traced, told by the trace id as TraceIdRatioBased does.
"""

from __future__ import annotations

import os
import re
from random import Random
from typing import NamedTuple

_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
_LONGEST_STATE = 512


class SpanContext(NamedTuple):
    """A span as others name it."""

    trace_id: bytes
    """16 bytes."""
    span_id: bytes
    """8 bytes."""
    sampled: bool
    state: str = ""
    """`tracestate`, passed on as it came."""

    @property
    def header(self) -> str:
        """The value of `traceparent`, or of `traceresponse`."""
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{'01' if self.sampled else '00'}"


def parse(parent: bytes | None, state: bytes | None = None) -> SpanContext | None:
    """Return the caller's span, None where there is none that can be read."""
    match = None if parent is None else _FORM.fullmatch(parent.strip())
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    trace_id, span_id = bytes.fromhex(trace.decode()), bytes.fromhex(span.decode())
    if version == b"ff" or (version == b"00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    kept = "" if state is None or len(state) > _LONGEST_STATE or not state.isascii() else state.decode()
    return SpanContext(trace_id, span_id, bool(int(flags, 16) & 1), kept)


class Sampler:
    """Parent-based; a share of the traces that begin here."""

    def __init__(self, ratio: float) -> None:
        self._bound = round(ratio * 2**64)
        self._random = Random()  # chooses whom to trace, keeps no secret; the system's is a call per request

    def begin(self, parent: SpanContext | None) -> SpanContext | None:
        """Return a new span of the parent's trace or of a new one; None where it is not sampled."""
        if parent is not None:
            return parent._replace(span_id=new_span_id()) if parent.sampled else None
        low = self._random.getrandbits(64)
        if low >= self._bound:
            return None
        return SpanContext(new_span_id() + low.to_bytes(8), new_span_id(), sampled=True)


def new_span_id() -> bytes:
    """Return 8 random bytes."""
    return os.urandom(8)
