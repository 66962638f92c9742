from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headway.client import EventClient
from headway.core.clock import SystemClock
from headway.core.errors import Forbidden, InvalidValue, TooLarge, Unauthenticated, Unavailable
from headway.core.times import HOUR
from headway.features.streams.decoding import Decoder
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import Message, Topic, TopicGone, partition_of
from headway.features.streams.publishing import Judge, Pair
from headway.serving.events import EventLimits, EventService
from headway.serving.gateway import Gateway
from tests.features.oracle import SOURCE, a_view
from tests.features.valkey import Valkey
from tests.serving.helpers import FakeVerifier, listening, principal, run, sales

T = TypeVar("T")
VIEW = a_view()
SCOPES = ("ingest:payments", "ingest:sales", "ingest:ghost")


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="v"))
    server = Valkey(folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def stream(server: Valkey) -> Iterator[RedisStream]:
    stream = RedisStream(server.url)
    stream._client.flushall()
    yield stream
    stream.close()


def event(i: int, **changed: Any) -> dict[str, Any]:
    return {"payment": i, "card": i % 7, "amount": 1.5, "event_time": SystemClock().now(), **changed}


def encoded(*events: Any) -> bytes:
    return json.dumps({"events": events}).encode()


class Posts:
    """The service behind the gateway, with a publisher's thread of its own."""

    def __init__(self, stream: Any, limits: EventLimits | None = None) -> None:
        self.executor = ThreadPoolExecutor(max_workers=1)
        judges = {"payments": Judge(SOURCE, [VIEW]), "sales": Judge(sales, [])}
        self.service = EventService(
            judges,
            stream=stream,
            verifier=FakeVerifier(principal("pos", *SCOPES), principal("other", "ingest:sales")),
            clock=SystemClock(),
            executor=self.executor,
            limits=limits,
        )
        self.gateway = Gateway(self.service)

    async def post(
        self,
        body: bytes,
        *,
        path: str = "/payments",
        token: str | None = "pos",
        lines: bool = False,
        method: str = "POST",
    ) -> tuple[int, dict[str, str], Any]:
        content_type = b"application/x-ndjson; charset=utf-8" if lines else b"application/json"
        headers = [(b"content-type", content_type)]
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        root = "/v1/events"
        scope = {"type": "http", "method": method, "path": f"{root}{path}", "root_path": root, "headers": headers}
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.gateway(scope, receive, send)
        names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], names, json.loads(sent[1]["body"])

    def call(self, work: Callable[[Posts], Awaitable[T]]) -> T:
        try:
            return run(work(self))
        finally:
            self.executor.shutdown()


def published(stream: RedisStream, topic: Topic) -> list[Message]:
    return [
        message for partition in range(topic.partitions) for message in stream.read(topic, partition, 0, limit=10_000)
    ]


def test_every_form_of_a_body_is_in_the_stream_when_it_is_answered(stream: RedisStream) -> None:
    topic = stream.create("payments", partitions=3)

    async def work(posts: Posts) -> list[tuple[int, dict[str, str], Any]]:
        lines = "\n".join(json.dumps(event(i)) for i in (4, 5)).encode()
        return [
            await posts.post(json.dumps(event(0)).encode()),
            await posts.post(encoded(*(event(i) for i in (1, 2, 3)))),
            await posts.post(lines, lines=True),
        ]

    answers = Posts(stream).call(work)
    assert [(status, body) for status, _, body in answers] == [(200, {"accepted": n}) for n in (1, 3, 2)]
    assert all(headers["x-request-id"] for _, headers, _ in answers)
    found = published(stream, topic)
    assert sorted(json.loads(message.value)["payment"] for message in found) == [0, 1, 2, 3, 4, 5]
    for partition in range(3):
        for message in stream.read(topic, partition, 0, limit=100):
            assert message.key == str(json.loads(message.value)["card"]).encode()
            assert partition_of(message.key, 3) == partition


@pytest.mark.parametrize(
    ("bad", "status", "field"),
    [
        (event(1, amount="x"), 422, "events[1].amount"),
        (event(1, amount=1e30), 422, "events[1].amount"),
        ({"payment": 1, "card": 1, "amount": 1}, 422, "events[1].event_time"),
        ({"payment": 1, "card": 1, "event_time": 1}, 422, "events[1].amount"),
        (event(1, payment=None), 422, "events[1].payment"),
        (event(1, event_time="soon"), 422, "events[1].event_time"),
        (event(1, event_time=SystemClock().now() + 2 * HOUR), 422, "events[1].event_time"),
        (event(1, known_time=SystemClock().now() + 2 * HOUR), 422, "events[1].known_time"),
        (event(1, event_time=2**61), 422, "events[1].event_time"),
        (7, 422, "events[1]"),
        (None, 422, "events[1]"),
    ],
)  # fmt: skip
def test_one_bad_event_refuses_its_request_and_no_other(stream: RedisStream, bad: Any, status: int, field: str) -> None:
    topic = stream.create("payments", partitions=2)

    async def work(posts: Posts) -> list[tuple[int, dict[str, str], Any]]:
        bodies = [encoded(event(10)), encoded(event(0), bad, event(2)), encoded(event(11))]
        return list(await asyncio.gather(*map(posts.post, bodies)))

    first, refused, last = Posts(stream).call(work)
    assert (first[0], refused[0], last[0]) == (200, status, 200)
    assert (refused[2]["field"], bool(refused[2]["error"])) == (field, True)
    assert sorted(json.loads(message.value)["payment"] for message in published(stream, topic)) == [10, 11]


@pytest.mark.parametrize(
    ("body", "lines", "status", "field"),
    [
        (b'{"payment": 1,', True, 400, "events[0]"),
        pytest.param(json.dumps(event(1)).encode() + b"\n\xff", True, 400, "events[1]", id="not UTF-8"),
        (b'{"payment": 1, "payment": 2, "event_time": 1}', False, 400, "events[0].payment"),
        (b"{", False, 400, None),
        (b'{"events": []}', False, 422, "events"),
        (b"x" * ((1 << 20) + 1), False, 413, "body"),
        (encoded(*[{}] * 1_001), False, 413, "events"),
    ],
)
def test_bodies_that_are_no_events(
    stream: RedisStream, body: bytes, lines: bool, status: int, field: str | None
) -> None:
    topic = stream.create("payments", partitions=1)
    got, _, said = Posts(stream).call(lambda posts: posts.post(body, lines=lines))
    assert (got, said.get("field")) == (status, field)
    assert published(stream, topic) == []


@pytest.mark.parametrize(
    ("path", "token", "status", "says"),
    [
        ("/payments", None, 401, "headway token"),
        ("/payments", "forged", 401, "does not verify"),
        ("/payments", "other", 403, "ingest:payments"),
        ("/ghost", "pos", 404, "known: payments, sales"),
        ("/ghost", "other", 403, "ingest:ghost"),
        ("/sales", "pos", 404, "headway stream run sales"),
        ("/", "pos", 404, "POST /v1/events/<source>"),
    ],
)
def test_who_may_not_and_where_there_is_nothing(
    stream: RedisStream, path: str, token: str | None, status: int, says: str
) -> None:
    stream.create("payments", partitions=1)
    sale = {"sale_id": 1, "customer_id": 1, "shop": "a", "amount": 1, "event_time": 5}
    body = encoded(sale if path == "/sales" else event(1))
    got, _, said = Posts(stream).call(lambda posts: posts.post(body, path=path, token=token))
    assert got == status
    assert says in said["error"]
    assert Posts(stream).call(lambda posts: posts.post(body, path=path, method="GET"))[0] == 404


def test_what_was_accepted_is_an_event_for_the_processor_and_the_rest_is_none(stream: RedisStream) -> None:
    """The endpoint and the processor agree on random events, sound and unsound."""
    topic = stream.create("payments", partitions=1)
    dice = random.Random(3)
    wrong: list[Any] = [
        None,
        "x",
        -1,
        2**63,
        1e300,
        True,
        [],
        {},
        "2020-01-01T00:00:00Z",
        "1969-12-31T23:59:59.5+01:00",
        0,
    ]
    names = ["payment", "card", "amount", "event_time", "known_time", "more"]
    events = [event(i, **{dice.choice(names): dice.choice(wrong)}) for i in range(400)]

    async def work(posts: Posts) -> list[int]:
        return [(await posts.post(json.dumps(item).encode()))[0] for item in events]

    statuses = Posts(stream).call(work)
    assert {200, 422} == set(statuses)
    found = published(stream, topic)
    assert [json.loads(message.value) for message in found] == [
        item for item, status in zip(events, statuses, strict=True) if status == 200
    ]
    horizon = SystemClock().now()
    assert Decoder(SOURCE, [VIEW]).decode(found, horizon).dead == []
    others = [
        Message(offset=i, key=b"", value=json.dumps(item).encode(), published=horizon)
        for i, (item, status) in enumerate(zip(events, statuses, strict=True))
        if status != 200
    ]
    assert len(Decoder(SOURCE, [VIEW]).decode(others, horizon).dead) == len(others)


def test_a_full_partition_pushes_back_and_others_still_take(stream: RedisStream) -> None:
    topic = stream.create("payments", partitions=2, capacity=5)
    full = next(card for card in range(20) if partition_of(str(card).encode(), 2) == 0)
    free = next(card for card in range(20) if partition_of(str(card).encode(), 2) == 1)
    stream.publish(topic, [(str(full).encode(), json.dumps(event(i)).encode()) for i in range(5)])

    async def work(posts: Posts) -> list[tuple[int, dict[str, str], Any]]:
        cards = [full, free, full, free]
        bodies = [encoded(event(100 + i, card=card)) for i, card in enumerate(cards)]
        return list(await asyncio.gather(*map(posts.post, bodies)))

    answers = Posts(stream).call(work)
    assert [status for status, _, _ in answers] == [503, 200, 503, 200]
    assert (answers[0][1]["retry-after"], answers[0][2]["code"]) == ("1", "topic_full")
    assert [message.offset for message in stream.read(topic, 1, 0, limit=10)] == [0, 1]


def test_a_topic_made_anew_is_found_and_one_that_is_gone_is_404(stream: RedisStream) -> None:
    stream.create("payments", partitions=1)

    async def work(posts: Posts) -> list[int]:
        body, statuses = encoded(event(1)), []
        statuses.append((await posts.post(body))[0])
        stream.delete("payments")
        statuses.append((await posts.post(body))[0])
        stream.create("payments", partitions=4)
        statuses.append((await posts.post(body))[0])
        stream.delete("payments")
        stream.create("payments", partitions=2)
        statuses.append((await posts.post(body))[0])
        return statuses

    assert Posts(stream).call(work) == [200, 404, 200, 200]
    assert len(published(stream, stream.topic("payments"))) == 1


def test_a_server_that_dies_is_503_and_is_found_again() -> None:
    folder = Path(tempfile.mkdtemp(prefix="v"))
    server = Valkey(folder, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    stream = RedisStream(server.url)
    stream.create("payments", partitions=1)

    async def work(posts: Posts) -> list[tuple[int, dict[str, str], Any]]:
        answers = [await posts.post(encoded(event(1)))]
        server.kill()
        answers.append(await posts.post(encoded(event(2))))
        server.start()
        answers.append(await posts.post(encoded(event(2))))
        return answers

    try:
        answers = Posts(stream).call(work)
        assert [status for status, _, _ in answers] == [200, 503, 200]
        assert answers[1][1]["retry-after"] == "1"
        kept = published(stream, stream.topic("payments"))
        assert [json.loads(message.value)["payment"] for message in kept] == [1, 2]
    finally:
        stream.close()
        server.kill()
        shutil.rmtree(folder)


class Slow:
    """A stream whose publications wait for a signal, and are counted."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls: list[int] = []

    def topic(self, name: str) -> Topic:
        if name != "payments":
            raise TopicGone("none", retry_after_s=1.0)
        return Topic(name=name, identity="x", partitions=1)

    def publish(self, topic: Topic, messages: list[Pair]) -> None:
        assert self.go.wait(60)
        self.calls.append(len(messages))


def test_requests_that_come_while_one_is_published_go_out_together() -> None:
    slow = Slow()

    async def work(posts: Posts) -> list[int]:
        first = asyncio.create_task(posts.post(encoded(event(0))))
        while posts.service.batcher.queued_rows or not posts.service.batcher._running_rows:
            await asyncio.sleep(0.001)
        rest = [asyncio.create_task(posts.post(encoded(event(i), event(i + 100)))) for i in range(20)]
        while posts.service.batcher.queued_rows < 40:
            await asyncio.sleep(0.001)
        slow.go.set()
        return [status for status, _, _ in await asyncio.gather(first, *rest)]

    assert Posts(slow).call(work) == [200] * 21
    assert slow.calls == [1, 40]


def test_the_queue_and_a_clients_rate_are_bounded() -> None:
    slow = Slow()
    limits = EventLimits(rate=0.001, burst=8.0, queued=4)

    async def work(posts: Posts) -> list[tuple[int, dict[str, str], Any]]:
        first = asyncio.create_task(posts.post(encoded(event(0))))
        while not posts.service.batcher._running_rows:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(posts.post(encoded(event(1), event(2), event(3))))
        while posts.service.batcher.queued_rows < 3:
            await asyncio.sleep(0.001)
        answers = [await posts.post(encoded(event(4), event(5)))]  # no room
        slow.go.set()
        answers += await asyncio.gather(first, waiting)
        answers.append(await posts.post(encoded(*map(event, range(4)))))
        answers.append(await posts.post(encoded(event(9))))  # above the rate
        answers.append(await posts.post(encoded(*map(event, range(9)))))
        return answers

    answers = Posts(slow, limits).call(work)
    assert [status for status, _, _ in answers] == [503, 200, 200, 200, 429, 413]
    assert all("retry-after" in answers[i][1] for i in (0, 4))


def test_the_client_over_real_http(stream: RedisStream) -> None:
    topic = stream.create("payments", partitions=2)

    def use(url: str) -> None:
        with EventClient(url, token="pos") as client:
            assert client.post("payments", [event(i) for i in range(50)]) == 50
            assert client.post("payments", [event(i) for i in range(50)]) == 50  # again: harmless
            with pytest.raises(InvalidValue) as caught:
                client.post("payments", [event(1), event(2, amount="much")])
            assert caught.value.field == "events[1].amount"
            with pytest.raises(TooLarge):
                client.post("payments", [event(1)] * 1_001)
            stream.delete("payments")
            stream.create("payments", partitions=1, capacity=3)
            with pytest.raises(Unavailable):
                client.post("payments", [event(i) for i in range(4)])
        with EventClient(url, token="other") as client, pytest.raises(Forbidden):
            client.post("payments", [event(1)])
        with EventClient(url, token=lambda: "forged") as client, pytest.raises(Unauthenticated):
            client.post("payments", [event(1)])

    async def work(posts: Posts) -> None:
        async with listening(posts.gateway, "/v1/events") as port:
            url = f"http://127.0.0.1:{port}"
            await asyncio.get_running_loop().run_in_executor(None, use, url)

    Posts(stream).call(work)
    assert topic.partitions == 2
