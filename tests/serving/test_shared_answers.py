"""One key, several replicas: decided once, answered alike, and free again when who claimed it is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headway.core.clock import Clock, ManualClock, SystemClock
from headway.core.errors import Conflict, Unavailable
from headway.features.link import RedisLink
from headway.serving import shared_answers as module
from headway.serving.breaker import State
from headway.serving.http import Response
from headway.serving.shared_answers import AnswerStore, Claim, MemoryAnswerStore, RedisAnswerStore, SharedAnswers
from tests.features.valkey import serving
from tests.serving.helpers import Toy, run
from tests.serving.test_service import body
from tests.serving.virtual_time import VirtualLoop, run_virtual

ANSWER = Response(200, b"\x00binary", headers=((b"a", b"b"),), content_type=b"text/plain")


def answers(store: AnswerStore, clock: Clock | None = None) -> SharedAnswers:
    return SharedAnswers("toy", store, clock or SystemClock(), patience_s=0.3)


async def conforms(first: SharedAnswers, second: SharedAnswers) -> None:
    """What every store has to do for two replicas."""
    claim = await first.claim("alice", "k", b"body")
    assert isinstance(claim, Claim)
    waiting = asyncio.create_task(second.claim("alice", "k", b"body"))
    with pytest.raises(Conflict):
        await second.claim("alice", "k", b"another body")
    assert isinstance(await second.claim("bob", "k", b"another body"), Claim)
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await claim.keep(ANSWER)
    assert await waiting == ANSWER
    assert await first.claim("alice", "k", b"body") == ANSWER
    with pytest.raises(Conflict):
        await first.claim("alice", "k", b"another body")
    # released: the next is first again, and who no longer holds the claim changes nothing
    old = await first.claim("alice", "k2", b"body")
    assert isinstance(old, Claim)
    old.release()
    new = await second.claim("alice", "k2", b"body")
    assert isinstance(new, Claim)
    await old.keep(ANSWER)
    old.release()
    with pytest.raises(Unavailable, match="still being decided"):
        await first.claim("alice", "k2", b"body")
    await new.keep(ANSWER)
    assert await first.claim("alice", "k2", b"body") == ANSWER


def test_in_memory() -> None:
    loop = VirtualLoop()
    store = MemoryAnswerStore(loop)
    run_virtual(conforms(answers(store, loop), answers(store, loop)), loop)


def test_on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLAIM_S", 3.0)  # a claim must outlast a stall of the machine

    async def work() -> None:
        with serving() as server:
            links = [RedisLink(server.url) for _ in range(2)]
            await conforms(*(answers(RedisAnswerStore(link)) for link in links))
            for link in links:
                await link.close()

    run(work())


def test_a_claim_whose_replica_died_is_free_for_the_retry_that_waits() -> None:
    loop = VirtualLoop()

    async def work() -> None:
        store = MemoryAnswerStore(loop)
        dead = answers(store, loop)
        assert isinstance(await dead.claim("alice", "k", b"body"), Claim)
        assert dead._renewing is not None
        dead._renewing.cancel()
        assert isinstance(await answers(store, loop).claim("alice", "k", b"body"), Claim)
        assert loop.monotonic() <= 0.6

    run_virtual(work(), loop)


def test_a_claim_lasts_as_long_as_its_decision() -> None:
    loop = VirtualLoop()

    async def work() -> None:
        store = MemoryAnswerStore(loop)
        slow = answers(store, loop)
        claim = await slow.claim("alice", "k", b"body")
        assert isinstance(claim, Claim)
        for _ in range(4):
            with pytest.raises(Unavailable, match="still being decided"):
                await answers(store, loop).claim("alice", "k", b"body")
        assert loop.monotonic() > 2
        await claim.keep(ANSWER)
        assert await answers(store, loop).claim("alice", "k", b"body") == ANSWER
        await asyncio.sleep(1)
        assert (slow._held, slow._renewing) == ({}, None)

    run_virtual(work(), loop)


def test_while_the_store_is_away_keys_are_the_replicas_own_and_it_is_not_asked_each_time() -> None:
    class Away(MemoryAnswerStore):
        asked = 0

        async def claim(self, key: bytes, value: bytes, life_s: float) -> bytes | None:
            self.asked += 1
            raise Unavailable("away", retry_after_s=1.0)

    async def work() -> None:
        store = Away(ManualClock())
        alone = answers(store, ManualClock())
        for index in range(10):
            assert await alone.claim("alice", str(index), b"body") is None
        assert (store.asked, alone.breaker.state) == (3, State.OPEN)

    run(work())


def test_a_store_is_not_filled_beyond_its_room() -> None:
    async def work() -> None:
        clock = ManualClock()
        store = MemoryAnswerStore(clock)
        shared = answers(store, clock)
        for index in range(40):
            claim = await shared.claim("alice", str(index), b"")
            assert isinstance(claim, Claim)
            await claim.keep(Response(200, bytes(1 << 20)))
        await asyncio.sleep(0)
        kept = [value for value, _ in store._values.values()]
        assert len(kept) == 31
        assert all(value.startswith(b"a") for value in kept)

    run(work())


def test_two_services_decide_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLAIM_S", 30.0)

    async def work() -> None:
        store = MemoryAnswerStore(SystemClock())
        toys = [Toy(tmp_path / name, answers=answers(store)) for name in "ab"]
        key = {"idempotency-key": "k"}
        both = await asyncio.gather(*(toy.http("POST", "/v1/decisions", body(20), headers=key) for toy in toys * 3))
        assert {(status, answer) for status, _, answer in both} == {(200, both[0][2])}
        assert sum(len(toy.recorder.batches) for toy in toys) == 1
        other = [await toy.http("POST", "/v1/decisions", body(21), headers=key) for toy in toys]
        assert [status for status, _, _ in other] == [409, 409]
        # a request that fails frees its key for whoever comes next
        failed = {"idempotency-key": "failed"}
        toys[0].reader.failure = toys[1].reader.failure = RuntimeError("bug")
        assert (await toys[0].http("POST", "/v1/decisions", body(20), headers=failed))[0] == 500
        toys[1].reader.failure = None
        assert (await toys[1].http("POST", "/v1/decisions", body(20), headers=failed))[0] == 200
        for toy in toys:
            toy.outcomes.close()

    run(work())
