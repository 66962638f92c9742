"""The endpoint's parts, put together from the repository's own definitions; the whole runs in test_streams_platform."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from features.fraud import card_activity, transactions
from headway.cluster.compose import Installation
from headway.cluster.events import EventParts, judges_of
from headway.core.clock import SystemClock
from headway.core.project import Project
from headway.features.definitions import View
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.publishing import Judge
from headway.serving.http import Request
from tests.conftest import ROOT
from tests.features.conftest import online_url, redis_url
from tests.features.oracle import SOURCE
from tests.serving.helpers import FakeVerifier, principal, run

__all__ = ["online_url", "redis_url"]


def test_every_source_is_judged_for_the_views_that_its_processors_feed() -> None:
    views: dict[str, list[View]] = {"fraud": [card_activity], "churn": []}
    at = SimpleNamespace(project=Project(ROOT), views=lambda use_case: views[use_case])
    judges = judges_of(cast(Installation, at))
    assert {"transactions", "fraud_outcomes"} <= set(judges)
    event = {"transaction_id": 1, "customer_id": 1, "terminal_id": 1, "amount": 5.0, "event_time": 5}
    values = [json.dumps(item).encode() for item in (event, event | {"amount": -1.0}, event | {"amount": 1e38})]
    judged = judges["transactions"].judge(values, 10)
    assert (judged.places, [letter.field for letter in judged.dead]) == ([0], ["amount", "amount"])
    assert judges["transactions"].source.table == transactions.table


def test_a_stop_publishes_what_was_accepted(online_url: str) -> None:
    stream = RedisStream(online_url)
    topic = stream.create("payments", partitions=1)
    verifier = FakeVerifier(principal("till", "ingest:payments"))
    parts = EventParts({"payments": Judge(SOURCE, [])}, stream=stream, verifier=verifier, clock=SystemClock())

    def request(i: int) -> Request:
        body = json.dumps({"payment": i, "card": 1, "amount": 1, "event_time": 5}).encode()
        return Request(method="POST", path="/payments", body=body, token="till")

    async def work() -> list[Any]:
        await parts.start()
        parts.require_alive()
        posts = [asyncio.create_task(parts.service.respond(request(i))) for i in range(20)]
        await asyncio.sleep(0)
        await parts.stop()
        return [(await post).status for post in posts]

    assert run(work()) == [200] * 20
    assert len(stream.read(topic, 0, 0, limit=100)) == 20
    stream.close()


@pytest.mark.parametrize("path", ["/payments", "/ghost"])
def test_a_handle_call_without_a_token_is_refused_like_http(online_url: str, path: str) -> None:
    stream = RedisStream(online_url)
    verifier = FakeVerifier()
    parts = EventParts({"payments": Judge(SOURCE, [])}, stream=stream, verifier=verifier, clock=SystemClock())
    answer = run(parts.service.respond(Request(method="POST", path=path, body=b"{}")))
    assert answer.status == 401
    stream.close()
