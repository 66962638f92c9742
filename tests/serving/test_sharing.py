"""Replicas that meet: each learns how many share the ceiling, and a client's limit holds over both."""

from __future__ import annotations

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import QuotaExceeded
from headway.features.link import RedisLink
from headway.serving.admission import Admission
from headway.serving.breaker import State
from headway.serving.shared_answers import MemoryAnswerStore
from headway.serving.shared_limits import RedisLimitStore
from headway.serving.sharing import Meeting, Sharing
from tests.features.valkey import serving
from tests.serving.helpers import run, terms
from tests.serving.test_admission import EMPTY


def test_replicas_learn_of_each_other_and_forget_who_left() -> None:
    async def work() -> None:
        with serving() as server:
            clock, link = ManualClock(), RedisLink(server.url, timeout_s=10.0)
            admissions = [Admission(terms(rate=1.0, burst=100.0).admission, clock) for _ in range(2)]
            replicas = [
                Sharing(
                    "toy",
                    Meeting(limits=RedisLimitStore(link, "toy", f"r{index}"), answers=MemoryAnswerStore(clock)),
                    admission,
                    clock,
                    patience_s=1.0,
                )
                for index, admission in enumerate(admissions)
            ]
            admissions[0].admit("a", 100, EMPTY, left_s=5)
            admissions[1].admit("a", 1, EMPTY, left_s=5)
            for replica in replicas * 2:
                await replica.limits.exchange()
            assert [admission.replicas for admission in admissions] == [2, 2]
            with pytest.raises(QuotaExceeded):
                admissions[1].admit("a", 1, EMPTY, left_s=5)
            await replicas[0].leave()
            clock.advance(2_000_000)
            await replicas[1].limits.exchange()
            assert admissions[1].replicas == 1
            assert {breaker.state for breaker in replicas[1].breakers()} == {State.CLOSED}
            await link.close()

    run(work())
