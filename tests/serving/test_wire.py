from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.serving import wire
from tests.serving.helpers import Toy, listening, run

ROW = {"customer_id": 5, "shop": "a", "amount": 20.0}
DECIDE, INFER = "/toy/v1/decisions", "/toy/v2/models/toy/infer"
TENSORS = {
    "inputs": [
        {"name": "customer_id", "shape": [1, 1], "datatype": "INT64", "data": [5]},
        {"name": "shop", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]},
        {"name": "amount", "shape": [1, 1], "datatype": "FP32", "data": [20.0]},
    ]
}
VARYING = {"id", "request_id", "decision_id", "decision_ids"}


def request(
    path: str = DECIDE, body: Any = None, *, token: str | None = "alice", version: str = "1.1", **headers: str
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps({"rows": [ROW]} if body is None else body).encode()
    lines = [f"POST {path} HTTP/{version}", "host: here", f"content-length: {len(data)}"]
    lines += [] if token is None else [f"Authorization: Bearer {token}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    first, *lines = head.strip().split("\r\n")
    names = [line.partition(":")[0] for line in lines]
    assert len(names) == len(set(names)), "each header once"
    headers = {name: line.partition(": ")[2] for name, line in zip(names, lines, strict=True)}
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 10)
    return int(first.split()[1]), headers, json.loads(body)


@asynccontextmanager
async def connected(toy: Toy, *, short: bool = True) -> AsyncIterator[Any]:
    async with listening(toy.gateway, "/toy", lanes=toy.service if short else None) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def exchange(toy: Toy, parts: Sequence[bytes], answers: int, *, short: bool = True) -> list[Any]:
    async with connected(toy, short=short) as (reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return [await answer(reader) for _ in range(answers)]


def plain(value: Any) -> Any:
    """A body without what differs from call to call."""
    if isinstance(value, dict):
        return {name: "…" if name in VARYING else plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def hold(toy: Toy) -> asyncio.Event:
    """Let no batch be scored before the event is set."""
    held, execute = asyncio.Event(), toy.batcher._execute

    async def later(calls: Any) -> Any:
        await held.wait()
        return await execute(calls)

    toy.batcher._execute = later
    return held


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of requests that were answered the short way."""
    paths: list[str] = []
    send = wire.Exchange.send

    def noted(self: wire.Exchange, response: Any) -> None:
        paths.append(self._lane.path)
        send(self, response)

    monkeypatch.setattr(wire.Exchange, "send", noted)
    return paths


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(), 200),
        (request(x_request_id="mine"), 200),
        (request(INFER, TENSORS), 200),
        (request(body={"rows": [ROW | {"amount": 666.0}]}), 200),
        (request(token=None), 401),
        (request(token="forged"), 401),
        (request(token="nobody"), 403),
        (request(body=b"{"), 400),
        (request(body={"rows": [{"customer_id": 5}]}), 422),
        (request(INFER, {"inputs": []}), 400),
        (request(body={"rows": [ROW], "as_of": 5}), 403),
    ],
)
def test_both_ways_give_the_same_answer(tmp_path: Path, taken: list[str], sent: bytes, status: int) -> None:
    found = []
    for short in (True, False):
        toy = Toy(tmp_path / str(short))
        found.append(toy.call(lambda toy, short=short: exchange(toy, [sent], 1, short=short))[0])  # type: ignore[misc]
    (code, headers, body), (other_code, other_headers, other_body) = found
    assert code == other_code == status
    assert plain(body) == plain(other_body)
    for each in (headers, other_headers):
        each.pop("date")
        if b"mine" not in sent:
            each.pop("x-request-id")
    assert headers == other_headers
    assert len(taken) == 1, "one of the two took the lane"


@pytest.mark.parametrize("short", [True, False])
def test_an_empty_request_id_is_none(tmp_path: Path, taken: list[str], short: bool) -> None:
    sent = request(x_request_id="")
    [(code, headers, _)] = Toy(tmp_path).call(lambda toy: exchange(toy, [sent], 1, short=short))
    assert (code, len(headers["x-request-id"]), bool(taken)) == (200, 36, short)


@pytest.mark.parametrize(
    "sent",
    [
        request(idempotency_key="k"),
        request(body={"rows": [ROW], "id": "k"}),
        request(content_encoding="identity"),
        request(expect="100-continue"),
        request(version="1.0"),
        request(f"{DECIDE}?x=1"),
    ],
)
def test_the_unusual_takes_the_long_way(tmp_path: Path, taken: list[str], sent: bytes) -> None:
    async def work(toy: Toy) -> Any:
        async with connected(toy) as (reader, writer):
            writer.write(sent)
            if b"expect" in sent:
                assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
            return await answer(reader)

    assert Toy(tmp_path).call(work)[0] == 200
    assert taken == []


def test_who_does_not_read_is_made_to_wait(tmp_path: Path) -> None:
    """Refusals come back at once: without back-pressure a caller who never reads would fill the memory."""
    toy = Toy(tmp_path)

    async def work() -> int:
        async with connected(toy) as (_, writer):
            grown = 0
            for _ in range(200):
                writer.write(request(token=None, body=b"", x_padding="x" * 100) * 200)
                try:
                    await asyncio.wait_for(writer.drain(), 0.5)
                except TimeoutError:
                    break
                grown += 1
            writer.transport.abort()
            await asyncio.sleep(0.1)  # the server hears of it
        return grown

    assert run(work(), within_s=60.0) < 200


def test_a_key_gets_the_first_answer(tmp_path: Path) -> None:
    keyed = request(body={"rows": [ROW], "id": "k"})
    first, second = Toy(tmp_path).call(lambda toy: exchange(toy, [keyed, keyed], 2))
    assert first[2] == second[2]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 2_000), max_size=12), close=st.booleans())
def test_requests_in_any_pieces_are_answered_in_order(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], close: bool
) -> None:
    last = request(x_request_id="r9", **({"connection": "close"} if close else {}))
    health = b"GET /toy/v2/health/live HTTP/1.1\r\nhost: here\r\nx-request-id: r3\r\n\r\n"
    sent = [
        request(x_request_id="r0"),
        request(body=b"{", x_request_id="r1"),
        request(INFER, TENSORS, x_request_id="r2"),
    ]
    stream = b"".join([*sent, health, request(x_request_id="r4", idempotency_key="k"), last])
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    parts = [stream[begin:end] for begin, end in pairwise(edges)]
    toy = Toy(tmp_path_factory.mktemp("wire"))
    found = toy.call(lambda toy: exchange(toy, parts, 6))
    assert [(status, headers["x-request-id"]) for status, headers, _ in found] == [
        (200, "r0"), (400, "r1"), (200, "r2"), (200, "r3"), (200, "r4"), (200, "r9"),
    ]  # fmt: skip
    assert found[-1][1].get("connection") == ("close" if close else None)


def test_who_is_gone_is_not_decided_and_the_others_are(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        held = hold(toy)
        async with listening(toy.gateway, "/toy", lanes=toy.service) as port:
            pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            for _, writer in pairs:
                writer.write(request())
                await asyncio.sleep(0.02)
            for _, writer in pairs[1:3]:
                writer.close()
            await asyncio.sleep(0.05)
            held.set()
            for reader, _ in (pairs[0], pairs[3]):
                assert (await answer(reader))[0] == 200
            for _, writer in pairs:
                writer.close()
        assert toy.batcher.queued_rows == 0

    toy = Toy(tmp_path)
    toy.call(work)
    assert toy.model.counted == 2


def test_a_server_that_stops_answers_what_it_has(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        held = hold(toy)
        async with listening(toy.gateway, "/toy", lanes=toy.service) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request())
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(0.3, held.set)
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        writer.close()

    Toy(tmp_path).call(work)


def test_lanes_belong_to_their_loop_and_are_closed(tmp_path: Path) -> None:
    toy = Toy(tmp_path)

    async def work() -> None:
        wire.open_lanes("/toy", toy.service, asyncio.get_running_loop())
        wire.open_lanes("/toys", toy.service, asyncio.get_running_loop())
        assert {DECIDE.encode(), INFER.encode()} <= wire.LANES.keys()
        wire.close_lanes("/toy")
        assert {target.split(b"/")[1] for target in wire.LANES} == {b"toys"}
        wire.close_lanes("/toys")
        assert not wire.LANES

    run(work())
    toy.outcomes.close()
