from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headway.core.errors import Unavailable
from headway.serving import gateway, service
from tests.serving.helpers import NOW, Toy, listening

BODY = json.dumps({"rows": [{"customer_id": 5, "shop": "a", "amount": 20.0}]}).encode()
Message = dict[str, Any]
BEARER = (b"authorization", b"Bearer alice")


async def ask(
    toy: Toy,
    receive: Callable[[], Awaitable[Message]],
    *headers: tuple[bytes, bytes],
    path: str = "/v1/decisions",
    method: str = "POST",
) -> tuple[int, dict[bytes, bytes], Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": f"/toy{path}", "root_path": "/toy", "headers": list(headers)}
    await toy.gateway(scope, receive, send)
    start, body, *_ = sent
    return start["status"], dict(start["headers"]), json.loads(body["body"])


async def unread() -> Message:
    raise AssertionError("the body was read")


async def gone() -> Message:
    return {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/v1/decisions", None, 401),
        ("/v1/decisions", b"forged", 401),
        ("/v1/decisions", b"nobody", 403),
        ("/v1/decisions", b"stranger", 403),
        ("/v1/outcomes", b"forged", 401),
        ("/v1/outcomes", b"nobody", 403),
        ("/v2/models/toy/infer", b"forged", 401),
        ("/v2/models/toy/infer/", b"forged", 401),
        ("/v2/models/toy/versions/7/infer", b"forged", 401),
        ("/v2/models/other/infer", b"forged", 404),
        ("/v1/nothing", b"alice", 404),
    ],
)
def test_of_a_stranger_or_for_nothing_no_body_is_read(
    tmp_path: Path, path: str, token: bytes | None, status: int
) -> None:
    headers = [] if token is None else [(b"authorization", b"Bearer " + token)]
    long, chunked = (b"content-length", b"900000"), (b"transfer-encoding", b"chunked")

    async def work(toy: Toy) -> None:
        for more, close in [([], False), ([(b"content-length", b"300")], False), ([long], True), ([chunked], True)]:
            got, answered, said = await ask(toy, gone if close else unread, *headers, *more, path=path)
            assert got == status
            assert said["request_id"]
            # a body without a near end is not listened to any more
            assert (answered.get(b"connection") == b"close") is close

    Toy(tmp_path).call(work)


def test_an_answer_comes_before_what_is_left_of_a_body_is_discarded(tmp_path: Path) -> None:
    events: list[str] = []

    async def work(toy: Toy) -> None:
        parts = [b" " * 1_000_000] * 3

        async def receive() -> Message:
            events.append("read")
            return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            events.append(str(message.get("status", message.get("more_body", "end"))))

        scope = {"type": "http", "method": "POST", "path": "/toy/v1/decisions", "root_path": "/toy"}
        await toy.gateway(scope | {"headers": [BEARER, (b"content-length", b"3000000")]}, receive, send)

    Toy(tmp_path).call(work)
    assert events == ["413", "True", "read", "read", "read", "end"]


def test_a_token_is_verified_once(tmp_path: Path) -> None:
    toy, asked = Toy(tmp_path), list[str]()
    verify = toy.verifier.verify

    def counted(token: str) -> Any:
        asked.append(token)
        return verify(token)

    toy.verifier.verify = counted  # type: ignore[method-assign]  # counts
    assert toy.call(lambda t: t.http("POST", "/v1/decisions", BODY))[0] == 200
    assert asked == ["alice"]


def test_a_failing_verifier_is_an_answer_without_its_inside(tmp_path: Path) -> None:
    toy, failures = Toy(tmp_path), [Unavailable("no keys", retry_after_s=1), RuntimeError("secret inside")]

    def failing(token: str) -> Any:
        raise failures.pop(0)

    toy.verifier.verify = failing  # type: ignore[method-assign]  # breaks it

    async def work(t: Toy) -> list[Any]:
        return [await t.http("POST", "/v1/decisions", BODY) for _ in range(2)]

    first, second = toy.call(work)
    assert (first[0], second[0]) == (503, 500)
    assert b"secret" not in second[2]


@pytest.mark.parametrize("first", [b"", BODY[:10]])
def test_a_body_that_does_not_end_is_given_up(tmp_path: Path, first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "BODY_S", 0.1)
    ended: list[bool] = []

    async def work(toy: Toy) -> tuple[int, dict[bytes, bytes], Any]:
        parts = [first] if first else []

        async def receive() -> Message:
            if parts:
                return {"type": "http.request", "body": parts.pop(), "more_body": True}
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)
            raise AssertionError("unreachable")

        return await ask(toy, receive, BEARER, (b"content-length", b"70"))

    status, headers, said = Toy(tmp_path).call(work)
    assert (status, headers[b"connection"]) == (408, b"close")
    assert (said["field"], ended) == ("body", [True])
    assert said["request_id"]


def test_a_trickle_is_given_up_although_something_always_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "BODY_S", 0.2)

    async def trickle() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    assert Toy(tmp_path).call(lambda toy: ask(toy, trickle, BEARER))[0] == 408


def test_a_body_that_comes_late_but_in_time_is_answered(tmp_path: Path) -> None:
    async def work(toy: Toy) -> list[int]:
        statuses = []
        for delays in [(0.01,), (0.01, 0.01), (0.0, 0.01, 0.01)]:
            size = -(-len(BODY) // len(delays))
            parts = [(delay, BODY[i * size : (i + 1) * size]) for i, delay in enumerate(delays)]

            async def receive(parts: list[tuple[float, bytes]] = parts) -> Message:
                delay, part = parts.pop(0)
                if delay:
                    await asyncio.sleep(delay)
                    await asyncio.sleep(0)  # a second wait inside one step
                return {"type": "http.request", "body": part, "more_body": bool(parts)}

            statuses.append((await ask(toy, receive, BEARER))[0])
        return statuses

    assert Toy(tmp_path).call(work) == [200, 200, 200]


def test_a_caller_who_goes_away_while_sending_gets_nothing(tmp_path: Path) -> None:
    async def work(toy: Toy) -> None:
        for waits in (False, True):

            async def receive(waits: bool = waits) -> Message:
                if waits:
                    await asyncio.sleep(0.01)
                return {"type": "http.disconnect"}

            with pytest.raises(ValueError, match="not enough values"):
                await ask(toy, receive, BEARER)

    Toy(tmp_path).call(work)


def test_a_body_that_is_there_starts_no_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Any:
        raise AssertionError("a timer on the fast path")

    monkeypatch.setattr(asyncio, "timeout", refused)
    assert Toy(tmp_path).call(lambda toy: toy.http("POST", "/v1/decisions", BODY))[0] == 200


def outcomes(count: int) -> bytes:
    row = {"decision_id": "018bcfe5-6800-7429-8c45-e49985ae9131", "label": 1, "event_time": NOW}
    return json.dumps({"outcomes": [row] * count}).encode()


def test_outcomes_above_the_rate_are_429_before_any_work(tmp_path: Path) -> None:
    toy = Toy(tmp_path, rate=1.0, burst=4)  # 20 outcomes at once

    async def work(t: Toy) -> list[Any]:
        answers = [await t.http("POST", "/v1/outcomes", outcomes(count)) for count in (21, 10, 10)]
        t.outcomes.take = None  # type: ignore[assignment,method-assign]  # must not be called
        answers.append(await t.http("POST", "/v1/outcomes", outcomes(10)))
        # nothing is read of who has no credit
        answers.append(await t.http("POST", "/v1/outcomes", b"no JSON"))
        # decisions have an account of their own
        answers.append(await t.http("POST", "/v1/decisions", BODY))
        return answers

    answers = toy.call(work)
    assert [answer[0] for answer in answers] == [413, 200, 200, 429, 429, 200]
    assert int(answers[3][1]["retry-after"]) >= 1


def test_bodies_that_cannot_be_used_are_charged_by_their_size(tmp_path: Path) -> None:
    toy = Toy(tmp_path, rate=0.001, burst=100)
    useless = b'{"rows": [' + b"{}, " * 16_000 + b"{}]}"  # 64 kB: 16 rows

    async def work(t: Toy) -> list[int]:
        statuses = [(await t.http("POST", "/v1/decisions", useless))[0] for _ in range(8)]
        return [*statuses, (await t.http("POST", "/v1/decisions", BODY))[0]]

    assert toy.call(work) == [422] * 7 + [429] * 2


def test_a_row_in_a_large_body_counts_by_the_bytes(tmp_path: Path) -> None:
    toy = Toy(tmp_path, rate=0.001, burst=10)

    async def work(t: Toy) -> list[int]:
        return [(await t.http("POST", "/v1/decisions", BODY + b" " * 20_000))[0] for _ in range(4)]

    assert toy.call(work) == [200, 200, 429, 429]


def test_the_backlog_of_outcomes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_OUTCOMES_S", 60.0)
    toy, go = Toy(tmp_path, max_queued_rows=100), threading.Event()
    take = toy.outcomes.take

    def slow(*arguments: Any, **named: Any) -> Any:
        assert go.wait(60)
        return take(*arguments, **named)

    toy.outcomes.take = slow  # type: ignore[method-assign]  # the control store hangs

    async def work(t: Toy) -> list[Any]:
        posts = [asyncio.create_task(t.http("POST", "/v1/outcomes", outcomes(40))) for _ in range(5)]
        while sum(post.done() for post in posts) < 3:
            await asyncio.sleep(0.01)
        go.set()
        return [*await asyncio.gather(*posts), await t.http("POST", "/v1/outcomes", outcomes(100))]

    answers = toy.call(work)
    assert [answer[0] for answer in answers] == [200, 200, 503, 503, 503, 200]
    assert answers[2][1]["retry-after"] == "1"


def request(token: bytes, length: int) -> bytes:
    return b"POST /toy/v1/decisions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (
        token,
        length,
    )


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"content-length"))
    await reader.readexactly(length)
    return head


def test_on_a_real_connection_strangers_and_the_slow_are_answered_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(toy: Toy) -> None:
        async with listening(toy.gateway, "/toy") as port:
            # refused before its short body came; the connection serves the next request
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(b"forged", len(BODY)))
            assert b" 401 " in await answer(reader)
            writer.write(BODY + request(b"alice", len(BODY)))
            await asyncio.sleep(0.05)  # headers and body in two segments
            writer.write(BODY)
            assert b" 200 " in await answer(reader)
            writer.write(request(b"alice", len(BODY)) + BODY)
            assert b" 200 " in await answer(reader)
            # a body that stops half-way
            monkeypatch.setattr(gateway, "BODY_S", 0.3)
            writer.write(request(b"alice", len(BODY)) + BODY[:20])
            assert b" 408 " in await answer(reader)
            assert await reader.read() == b""
            writer.close()
            # a body over the limit that is on its way: the answer is not lost in a reset
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(b"alice", 3_000_000))
            assert b" 413 " in await answer(reader)
            writer.write(b" " * 3_000_000)
            await writer.drain()
            assert await reader.read() == b""
            writer.close()
            # a stranger's long body is not awaited
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(b"forged", 1_000_000))
            assert b" 401 " in await answer(reader)
            assert await reader.read() == b""
            writer.close()

    Toy(tmp_path).call(work)


def test_outcomes_that_are_not_kept_in_time_are_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that only wait for a thread behind such."""
    monkeypatch.setattr(service, "_OUTCOMES_S", 0.1)
    toy, go = Toy(tmp_path), threading.Event()
    take = toy.outcomes.take

    def slow(*arguments: Any, **named: Any) -> Any:
        assert go.wait(60)
        return take(*arguments, **named)

    toy.outcomes.take = slow  # type: ignore[method-assign]  # the control store stands still

    async def work(t: Toy) -> list[Any]:
        answers = await asyncio.gather(*(t.http("POST", "/v1/outcomes", outcomes(1)) for _ in range(20)))
        monkeypatch.setattr(service, "_OUTCOMES_S", 60.0)
        go.set()
        return [*answers, await t.http("POST", "/v1/outcomes", outcomes(1))]

    *refused, after = toy.call(work)
    assert {(status, headers["retry-after"]) for status, headers, _ in refused} == {(503, "1")}
    assert after[0] == 200
