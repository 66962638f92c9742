"""Replays a stretch of a history as live traffic: events into their streams, decisions over HTTP, then outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

import pyarrow as pa

from headway.cluster.applications import base_url
from headway.cluster.compose import Installation
from headway.cluster.demo.live import Producer
from headway.cluster.demo.plan import Chunk, due_outcomes, request_bodies
from headway.cluster.demo.traffic import TrafficClient, TrafficResult, send
from headway.cluster.tokens import TokenSource
from headway.core.progress import Stage
from headway.features.history import History

_OUTCOMES_PER_POST = 500
_PUBLISHING = 0.7
"""Part of a chunk's time over which the next one's events are published."""


@dataclass
class Replayed:
    """What a replay sent and got."""

    traffic: TrafficResult = field(default_factory=TrafficResult)
    served: dict[Any, str] = field(default_factory=dict)
    """Event id → decision id."""
    labels: dict[str, int] = field(default_factory=dict)
    """Decision id → label, of the outcomes posted."""
    versions: dict[str, int] = field(default_factory=dict)
    """Model version → decisions."""
    degraded: int = 0
    """Decisions that named something degraded."""
    stale: int = 0
    until: int = 0
    """Replayed up to, UTC microseconds."""

    def take(self, ids: list[Any], result: TrafficResult) -> None:
        """Add a chunk's answers."""
        self.traffic.extend(result)
        for event, answer in zip(ids, result.answers, strict=True):
            if answer is None:
                continue
            (decision,) = answer["decisions"]
            self.served[event] = decision["decision_id"]
            self.versions[answer["model_version"]] = self.versions.get(answer["model_version"], 0) + 1
            self.degraded += bool(decision["degraded"])
            self.stale += any(note.startswith("stale:") for note in decision["degraded"])


def traffic_process() -> ProcessPoolExecutor:
    """Return a fresh process to send requests from; close it after use."""
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))


class Replayer:
    """Sends one use case's chunks; events of the next chunk are published while a chunk's requests are sent."""

    def __init__(self, at: Installation, history: History, tables: Mapping[str, pa.Table]) -> None:
        self._at = at
        self._history = history
        self._tables = tables
        use_case = history.use_case
        scopes = [f"{verb}:{use_case}" for verb in ("decide", "outcomes", "replay")]
        purpose = at.contract(use_case).contract.privacy.purposes[0]
        self._token = TokenSource(at.settings, sub="demo-client", scopes=scopes, purpose=purpose)
        self._url = f"{base_url(at)}/{use_case}"
        self._posted: set[str] = set()

    async def send(self, pool: ProcessPoolExecutor, requests: pa.Table, rate: float) -> TrafficResult:
        """Decide the rows at `rate` per second, from the process of `pool`."""
        bodies = request_bodies(self._at.service(self._history.use_case), requests)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, send, self._url, self._token(), "/v1/decisions", bodies, rate)

    def publish(self, chunk: Chunk) -> None:
        """Publish a chunk's events to their streams and wait until they are readable."""
        with Producer(self._at, self._history) as producer:
            producer.publish(producer.hand_over(chunk.events))

    def run(self, chunks: Iterable[Chunk], rate: float, stage: Stage, into: Replayed) -> None:
        """Replay the chunks at `rate` requests per second."""
        asyncio.run(self._run(list(chunks), rate, stage, into))

    async def _run(self, chunks: list[Chunk], rate: float, stage: Stage, into: Replayed) -> None:
        total = sum(chunk.requests.num_rows for chunk in chunks)
        loop = asyncio.get_running_loop()
        sent = 0
        with (
            Producer(self._at, self._history) as producer,
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish") as publishing,
            traffic_process() as sending,
        ):
            handed = [producer.hand_over(chunk.events) for chunk in chunks]
            pending = [loop.run_in_executor(publishing, producer.publish, events) for events in handed[:1]]
            async with TrafficClient(self._url, self._token) as client:
                for index, chunk in enumerate(chunks):
                    await pending[index]
                    if index + 1 < len(chunks):
                        # while this chunk's requests are sent, with time left to read them
                        over_s = _PUBLISHING * chunk.requests.num_rows / rate
                        act = partial(producer.publish, handed[index + 1], over_s=over_s)
                        pending.append(loop.run_in_executor(publishing, act))
                    result = await self.send(sending, chunk.requests, rate)
                    into.take(chunk.requests[self._history.requests.id].to_pylist(), result)
                    into.until = chunk.until
                    sent += chunk.requests.num_rows
                    stage.advance(sent, total)
                    await self._post_outcomes(client, into)

    async def _post_outcomes(self, client: TrafficClient, into: Replayed) -> None:
        waiting = {event: decision for event, decision in into.served.items() if decision not in self._posted}
        due = due_outcomes(self._history, self._tables, waiting, into.until)
        for begin in range(0, len(due), _OUTCOMES_PER_POST):
            part = due[begin : begin + _OUTCOMES_PER_POST]
            answer = await client.post("/v1/outcomes", {"outcomes": part})
            if answer["accepted"] != len(part):
                into.traffic.errors.append(f"outcomes: {answer} of {len(part)}")
            self._posted.update(item["decision_id"] for item in part)
            into.labels.update({item["decision_id"]: int(item["label"]) for item in part})
