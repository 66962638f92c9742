"""Requests as a client sends them that keeps to the contract: what it is asked for later is sent later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from headway.cluster.demo import traffic
from headway.cluster.demo.traffic import TrafficClient, TrafficResult
from headway.core.errors import Unavailable

Answers = Mapping[int, list[tuple[int, str]]]
"""Number in the body → status and Retry-After of one answer after another; the last goes on."""


async def replayed(answers: Answers) -> tuple[TrafficResult, dict[int, int]]:
    """Send one request per number; return what came back and how often each was sent."""
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    sent = dict.fromkeys(answers, 0)

    async def answer(request: web.Request) -> web.Response:
        number = (await request.json())["n"]
        status, after = answers[number][min(sent[number], len(answers[number]) - 1)]
        sent[number] += 1
        return web.json_response({"n": number}, status=status, headers={"retry-after": after} if after else {})

    app = web.Application()
    app.router.add_post("/decisions", answer)
    async with TestServer(app) as server, TrafficClient(str(server.make_url("")).rstrip("/"), lambda: "t") as client:
        result = await client.replay("/decisions", [{"n": number} for number in answers], 1_000.0)
        for number, expected in enumerate(result.answers):
            if expected is None:
                with pytest.raises(Unavailable, match=str(answers[number][-1][0])):
                    await client.post("/decisions", {"n": number})
            else:
                assert await client.post("/decisions", {"n": number}) == expected
    return result, sent


def test_a_refusal_that_names_a_time_is_repeated_and_counts_as_latency() -> None:
    wait = "0.05"
    result, sent = asyncio.run(replayed({0: [(429, wait), (503, wait), (200, "")], 1: [(200, "")]}))
    assert result.errors == []
    assert result.answers == [{"n": 0}, {"n": 1}]
    assert result.latencies_ms[0] > 90
    assert (result.refused, sent) == (2, {0: 4, 1: 2})


def test_what_names_no_time_fails_at_once() -> None:
    result, sent = asyncio.run(replayed({0: [(503, "")], 1: [(500, "0")], 2: [(200, "")]}))
    assert [error[:3] for error in sorted(result.errors)] == ["500", "503"]
    assert result.answers == [None, None, {"n": 2}]
    assert (result.refused, sent) == (0, {0: 2, 1: 2, 2: 2})


def test_a_refusal_is_not_repeated_for_longer_than_a_caller_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "_TIMEOUT_S", 60.0)
    result, sent = asyncio.run(replayed({0: [(429, "61")]}))
    assert result.errors[0].startswith("429")
    assert (result.refused, sent) == (0, {0: 2})


def test_stretches_of_traffic_add_up() -> None:
    one = TrafficResult(latencies_ms=[1.0], answers=["a"], errors=["e"], refused=1)
    one.extend(TrafficResult(latencies_ms=[2.0], answers=["b"], errors=["f"], refused=2))
    assert one == TrafficResult(latencies_ms=[1.0, 2.0], answers=["a", "b"], errors=["e", "f"], refused=3)
