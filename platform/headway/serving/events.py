"""`POST /v1/events/<source>`: authenticate, split, admit; then many requests are judged and published in one go.

An event is answered for once the stream has it on disk. A request is published whole or, if one of its events is
refused, not at all. Repeating a request is safe: the same event id is the same event, however often it comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import msgspec

from headway.core.clock import Clock
from headway.core.errors import Forbidden, HeadwayError, NotFound, QuotaExceeded, TooLarge, Unauthenticated, Unavailable
from headway.core.ids import uuid7
from headway.core.types import Principal
from headway.features.streams.port import EventStream, TopicFull, TopicGone
from headway.features.streams.publishing import Judge, Pair, TopicWriter
from headway.serving.batching import Batcher
from headway.serving.errors import error_response, log_unexpected, own
from headway.serving.event_bodies import refusal, require_unique_members, split
from headway.serving.http import Request, Response
from headway.serving.limiter import Gcra
from headway.serving.observer import Observer
from headway.serving.service import Verifier

_LOG = logging.getLogger(__name__)
PREFIX = "/v1/events"
"""Route of the application: sources are shared by use cases."""
_LONGEST_NAME = 200
_BYTES_PER_EVENT = 1_024
"""A body counts as at least one event per so many bytes: the stream keeps bytes, not events."""


@dataclass(frozen=True, kw_only=True)
class EventLimits:
    """What one replica takes on."""

    rate: float = 50_000.0
    """Events per second and client."""
    burst: float = 100_000.0
    """Events a client may send at once."""
    queued: int = 100_000
    """Events that may wait."""
    batch: int = 5_000
    """Events of one publication, but for a larger request."""
    patience_s: float = 10.0
    """Longest wait before a publication begins."""


@dataclass(frozen=True, slots=True)
class _Posted:
    """The events of one request."""

    source: str
    values: list[bytes]
    deadline: float

    @property
    def size(self) -> int:
        return len(self.values)


class EventAnswer(msgspec.Struct):
    """How many events the stream has now."""

    accepted: int


class EventService:
    """Takes events of all sources of a project; lives on one event loop."""

    def __init__(
        self,
        judges: Mapping[str, Judge],
        *,
        stream: EventStream,
        verifier: Verifier,
        clock: Clock,
        executor: Executor,
        limits: EventLimits | None = None,
    ) -> None:
        """Publish nothing yet.

        Args:
            judges: By source; a topic has the name of its source.
            stream: Used by the executor's thread alone.
            verifier: Checks tokens.
            clock: Tells the present, after which no event may lie too far.
            executor: One thread: judging and publishing block.
            limits: None: the defaults.
        """
        self._judges = judges
        self._writers = {name: TopicWriter(stream, name) for name in judges}
        self._verifier = verifier
        self._clock = clock
        self._executor = executor
        self._limits = limits or EventLimits()
        self._gcra = Gcra(rate=self._limits.rate, burst=self._limits.burst)
        self.batcher: Batcher[_Posted, int] = Batcher(self._execute, max_rows=self._limits.batch, clock=clock)
        self._encoder = msgspec.json.Encoder()
        self.observer = Observer(None, clock)

    def caller(self, method: str, path: str, token: str | None) -> Principal | None:
        """Return who asks; Unauthenticated, Forbidden without `ingest:<source>`, NotFound for an unknown source."""
        if method != "POST" or not path.strip("/"):
            return None
        source = path.strip("/")
        if token is None:
            raise Unauthenticated("no bearer token", hint="send authorization: Bearer …; headway token prints one")
        principal = self._verifier.verify(token)
        if f"ingest:{source}" not in principal.scopes:
            raise Forbidden(
                f"{principal.sub} lacks the scope ingest:{source[:_LONGEST_NAME]}",
                hint="ask for a token with that scope: headway token",
            )
        if source not in self._judges:
            own = sorted(name for name in self._judges if f"ingest:{name}" in principal.scopes)
            raise NotFound("source", source, known=own)
        return principal

    async def respond(self, request: Request, caller: Principal | None = None) -> Response:
        """Answer one request; never raises but for cancellation. `caller`: what the method of that name returned."""
        try:
            principal = caller or self.caller(request.method, request.path, request.token)
            if principal is None:
                raise NotFound("path", f"{request.method} {PREFIX}{request.path}", known=[f"POST {PREFIX}/<source>"])
            values = split(request.body, request.content_type)
            self._admit(principal.sub, max(len(values), len(request.body) // _BYTES_PER_EVENT))
            posted = _Posted(request.path.strip("/"), values, self._clock.monotonic() + self._limits.patience_s)
            accepted = await self.batcher.submit(posted)
            return Response(200, self._encoder.encode(EventAnswer(accepted)))
        except Exception as error:
            return self.failed(error, request.request_id, request.path)

    def failed(self, error: Exception, request_id: str, path: str) -> Response:  # noqa: ARG002  # the gateway's form
        """Return the answer to a failed request."""
        log_unexpected(_LOG, error, request_id)
        return error_response(error, request_id)

    def request_id(self) -> str:
        """Return a fresh request id."""
        return uuid7(self._clock.now())

    def _admit(self, client: str, events: int) -> None:
        """Let events in, or raise QuotaExceeded, TooLarge or Unavailable."""
        if events > self._limits.burst:
            raise TooLarge(
                f"{events} events, at most {self._limits.burst:.0f}", field="events", hint="split the request"
            )
        if self.batcher.queued_rows + events > self._limits.queued:
            raise Unavailable(
                f"overloaded: {self.batcher.queued_rows} events wait", retry_after_s=self.batcher.wait_s(events)
            )
        excess = self._gcra.take(client, events, self._clock.monotonic())
        if excess:
            raise QuotaExceeded(
                f"{client} is above {self._limits.rate:g} events per second", retry_after_s=excess, hint="slow down"
            )

    async def _execute(self, posted: Sequence[_Posted]) -> Sequence[int | Exception]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._take, posted)

    def _take(self, posted: Sequence[_Posted]) -> list[int | Exception]:
        """Judge and publish; return how many events of each request the stream has, or why it has none."""
        results: dict[int, int | Exception] = {}
        for source in dict.fromkeys(item.source for item in posted):
            ours = [i for i, item in enumerate(posted) if item.source == source]
            good = self._judged(source, {i: posted[i].values for i in ours}, results)
            results |= self._published(source, good)
        return [results[i] for i in range(len(posted))]

    def _judged(
        self, source: str, requests: Mapping[int, list[bytes]], results: dict[int, int | Exception]
    ) -> dict[int, list[Pair]]:
        """Return what may be published, by request; why the others are refused goes into the results."""
        owners, values = [], []
        for request, its in requests.items():
            try:
                require_unique_members(its)
            except HeadwayError as error:
                results[request] = error
                continue
            owners += [(request, place) for place in range(len(its))]
            values += its
        judged = self._judges[source].judge(values, self._clock.now())
        for letter in judged.dead:
            request, place = owners[letter.message.offset]
            results.setdefault(request, refusal(letter, place))
        good: dict[int, list[Pair]] = {}
        for place, pair in zip(judged.places, judged.pairs, strict=True):
            request = owners[place][0]
            if request not in results:
                good.setdefault(request, []).append(pair)
        return good

    def _published(self, source: str, requests: Mapping[int, list[Pair]]) -> dict[int, int | Exception]:
        """Publish all requests together; where partitions are full, only those that need one of them are refused."""
        if not requests:
            return {}
        results: dict[int, int | Exception] = {request: len(pairs) for request, pairs in requests.items()}
        writer = self._writers[source]
        try:
            writer.publish([pair for pairs in requests.values() for pair in pairs])
        except TopicFull as error:
            for request, pairs in requests.items():
                if any(writer.partition(key) in error.partitions for key, _ in pairs):
                    results[request] = own(error)
        except TopicGone:
            return {request: _no_topic(source) for request in requests}
        except HeadwayError as error:
            return {request: own(error) for request in requests}
        return results


def _no_topic(source: str) -> NotFound:
    error = NotFound("topic", source)
    error.hint = f"nothing takes events of this source yet: headway stream run {source}"
    return error
