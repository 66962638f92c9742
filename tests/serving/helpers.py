"""A small use case in memory: two entities, a reader and a model that tests can bend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvicorn

from headway.core.clock import Clock, SystemClock
from headway.core.control import MemoryControlStore
from headway.core.errors import Unauthenticated
from headway.core.types import Columns, Int64, Matrix, Principal
from headway.features.aggregates import count, mean
from headway.features.definitions import Entity, EventSource, FeatureService, WindowView
from headway.features.online import OnlineReader, OnlineRows
from headway.serving import hook, wire
from headway.serving.admission import AdmissionLimits
from headway.serving.batching import Batcher
from headway.serving.decision_ids import DecisionIds
from headway.serving.explaining import Explaining
from headway.serving.fallback import Rules
from headway.serving.gateway import Gateway
from headway.serving.grpc.servicer import InferenceServicer
from headway.serving.host import HostState
from headway.serving.meter import Meter, MeteredRecorder
from headway.serving.outcomes import Outcomes
from headway.serving.recomputing import Lake, Recomputer
from headway.serving.schema import DecisionSchema
from headway.serving.scoring import Scorer
from headway.serving.service import DecisionService
from headway.serving.shared_answers import SharedAnswers
from headway.serving.terms import Freshness, Terms
from headway.serving.tracing import Tracer
from headway.serving.work import Answer, Call, Recorded

T = TypeVar("T")
customer = Entity(name="customer", key="customer_id")
shop = Entity(name="shop", key="shop", dtype="string")
sales = EventSource(
    name="sales",
    columns={"sale_id": "int64", "customer_id": "int64", "shop": "string", "amount": "float32"},
    id="sale_id",
    bucket_by="customer_id",
)
activity = WindowView(
    name="activity", entity=customer, source=sales, max_events=10, aggregates=(*count("7d"), *mean("amount", "7d"))
)
shops = WindowView(name="shops", entity=shop, source=sales, max_events=10, aggregates=count("7d"))
service = FeatureService(name="toy_v1", views=(activity, shops), request={"amount": "float32"})
schema = DecisionSchema.of(service)
NOW = 1_700_000_000_000_000


def run(work: Awaitable[T], within_s: float = 20.0) -> T:
    async def main() -> T:
        return await asyncio.wait_for(work, within_s)

    return asyncio.run(main())


@dataclass
class FakeReader:
    """Every known customer is 0..99; features are the key itself."""

    watermark: int | None = None
    failure: Exception | None = None
    batches: list[int] = field(default_factory=list)

    async def read(self, keys: Columns, at: Int64) -> OnlineRows:
        self.batches.append(len(at))
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        ids = keys["customer_id"].astype(np.float32)
        unknown = (ids >= 100).astype(np.uint8)
        mark = int(at.max()) if self.watermark is None else self.watermark
        return OnlineRows(
            parts=[
                lambda: {
                    "activity__count_7d": ids,
                    "activity__amount_mean_7d": ids / np.float32(2),
                    "shops__count_7d": np.ones(len(at), np.float32),
                }
            ],
            status={"activity": unknown, "shops": np.zeros(len(at), np.uint8)},
            watermark={"activity": mark, "shops": mark},
        )


@dataclass
class FakeModel:
    """Scores amount / 100; amounts of 666 break it, 13 gives a score that is not a number."""

    version: str = "7"
    counted: int = 0
    batches: list[int] = field(default_factory=list)

    def predict(self, matrix: Matrix) -> Matrix:
        self.batches.append(len(matrix))
        amount = matrix[:, 0]
        if (amount == 666).any():
            raise RuntimeError("secret inside")
        scores = np.clip(amount / 100, 0, 1)
        scores[amount == 13] = np.nan
        return scores.astype(np.float32)

    def count(self, matrix: Matrix, scores: Matrix, at: Int64) -> None:
        self.counted += len(matrix)


@dataclass
class MemoryRecorder:
    batches: list[Recorded] = field(default_factory=list)

    def add(self, batch: Recorded) -> None:
        self.batches.append(batch)


class FakeVerifier:
    def __init__(self, *principals: Principal) -> None:
        self.tokens = {item.sub: item for item in principals}

    def verify(self, token: str) -> Principal:
        if token not in self.tokens:
            raise Unauthenticated("the token does not verify")
        return self.tokens[token]


class FakeHost:
    ready = True
    state = HostState(generation=3, champion="7", previous=None, error=None)


def principal(sub: str, *scopes: str, purpose: str = "testing") -> Principal:
    return Principal(sub=sub, kind="workload", scopes=frozenset(scopes), purpose=purpose, expires=2**62)


def terms(**changes: Any) -> Terms:
    limits: dict[str, Any] = {
        "rate": 1e6, "burst": 1_000, "ceiling": 1e6, "deadline_s": 0.05, "target_s": 0.02,
        "max_queued_rows": 5_000, "shed": True,
    }  # fmt: skip
    limits.update({name: changes.pop(name) for name in list(changes) if name in limits})
    values: dict[str, Any] = {
        "threshold": 0.5,
        "names": ("low", "high"),
        "freshness": (Freshness(view="activity", max_lag=5_000_000, on_stale="null"),),
        "ladder": ("rules",),
        "durable": True,
        "purposes": ("testing",),
    }
    return Terms(admission=AdmissionLimits(**limits), **{**values, **changes})


rules = Rules(use_case="toy", score=lambda columns: np.full(len(columns["amount"]), 0.25))


class Toy:
    """The whole request path of the use case `toy`."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        with_rules: bool = True,
        lake: Lake | None = None,
        store: OnlineReader | None = None,
        answers: SharedAnswers | None = None,
        tracer: Tracer | None = None,
        explaining: Callable[[Toy], Explaining] | None = None,
        **changes: Any,
    ) -> None:
        self.clock = clock or SystemClock()
        self.reader = FakeReader()
        self.model = FakeModel()
        self.steps: list[tuple[str, Any]] = [("champion", self.model)]
        self.recorder = MemoryRecorder()
        self.ids = DecisionIds(b"k" * 32, "toy")
        self.store = MemoryControlStore()
        self.meter, self.tracer = Meter(), tracer
        contract = terms(**changes)
        self.scorer = Scorer(
            service=service,
            terms=contract,
            reader=store or self.reader,
            recomputer=None if lake is None else Recomputer(lake, self.clock, within_s=contract.admission.deadline_s),
            ladder=lambda: self.steps,
            rules=rules if with_rules else None,
            recorder=MeteredRecorder(self.recorder, self.meter),
            ids=self.ids,
            clock=self.clock,
            meter=self.meter,
        )
        self.batcher: Batcher[Call, Answer] = Batcher(self.scorer, max_rows=64, clock=self.clock)
        self.outcomes = Outcomes(
            "toy", ids=self.ids, store=self.store, names=contract.names, folder=folder, writer="w", clock=self.clock
        )
        self.verifier = FakeVerifier(
            principal("alice", "decide:toy", "outcomes:toy"),
            principal("replayer", "decide:toy", "replay:toy", "outcomes:toy"),
            principal("nobody"),
            principal("stranger", "decide:toy", purpose="marketing"),
        )
        self.service = DecisionService(
            "toy",
            schema=schema,
            terms=contract,
            verifier=self.verifier,
            batcher=self.batcher,
            outcomes=self.outcomes,
            host=FakeHost(),
            room=lambda: None,
            clock=self.clock,
            answers=answers,
            breakers=self.scorer.breakers,
            meter=self.meter,
            tracer=tracer,
            explaining=explaining(self) if explaining else None,
        )
        self.gateway = Gateway(self.service)
        self.inference = InferenceServicer("toy", schema, self.service)

    async def http(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        *,
        token: str | None = "alice",
        headers: dict[str, str] | None = None,
        query: str = "",
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request through the ASGI gateway."""
        parts = [body] if isinstance(body, bytes) else list(body)
        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        if token is not None:
            raw.append((b"authorization", f"Bearer {token}".encode()))
        scope = {
            "type": "http", "method": method, "path": f"/toy{path}", "root_path": "/toy", "headers": raw,
            "query_string": query.encode(),
        }  # fmt: skip
        sent: list[Any] = []
        waiting = list(enumerate(parts))

        async def receive() -> dict[str, Any]:
            if not waiting:
                assert sent, "the body was asked for beyond its end, before the answer"
                return {"type": "http.disconnect"}
            index, part = waiting.pop(0)
            return {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.gateway(scope, receive, send)
        start, *bodies = [message["type"] for message in sent]
        assert (start, {*bodies}) == ("http.response.start", {"http.response.body"})
        assert not sent[-1].get("more_body", False)
        names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], names, b"".join(message["body"] for message in sent[1:])

    def call(self, work: Callable[[Toy], Awaitable[T]], *, within_s: float = 20.0) -> T:
        try:
            return run(work(self), within_s)
        finally:
            self.outcomes.close()


@asynccontextmanager
async def listening(gateway: Gateway, prefix: str, *, lanes: wire.Service | None = None) -> AsyncIterator[int]:
    """A gateway behind the server that Serve uses, on a port of its own; with `lanes`, as the hook sets it up."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["root_path"] = prefix
        await gateway(scope, receive, send)

    connection = "httptools" if lanes is None else hook.CONNECTION
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", http=connection))
    if lanes is not None:
        wire.open_lanes(prefix, lanes, asyncio.get_running_loop())
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
        wire.close_lanes(prefix)
