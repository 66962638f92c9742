"""What the replicas of a use case hold in common: limits in the background, answers by idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from headway.core.clock import Clock
from headway.core.errors import Unavailable
from headway.features.link import RedisLink
from headway.serving.admission import Admission
from headway.serving.breaker import Breaker
from headway.serving.shared_answers import AnswerStore, RedisAnswerStore, SharedAnswers
from headway.serving.shared_limits import LimitStore, RedisLimitStore, SharedLimits

_LONGEST_S = 0.25
"""The longest wait for other replicas' limits and answers."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where replicas meet."""

    limits: LimitStore
    answers: AnswerStore
    link: RedisLink | None = None

    @classmethod
    def at(cls, url: str, use_case: str, replica: str) -> Meeting:
        """Return the stores on a Redis-protocol server, over one connection that nothing else waits for."""
        link = RedisLink(url, timeout_s=_LONGEST_S)
        return cls(limits=RedisLimitStore(link, use_case, replica), answers=RedisAnswerStore(link), link=link)

    async def close(self) -> None:
        """Close the connection."""
        if self.link is not None:
            await self.link.close()


class Sharing:
    """One replica's part."""

    def __init__(
        self, use_case: str, meeting: Meeting, admission: Admission, clock: Clock, *, patience_s: float
    ) -> None:
        self.answers = SharedAnswers(use_case, meeting.answers, clock, patience_s=patience_s)

        def share(replicas: int) -> None:
            admission.replicas = replicas

        self.limits = SharedLimits(
            {"decisions:": admission.decisions, "outcomes:": admission.outcomes},
            meeting.limits,
            clock,
            on_replicas=share,
        )

    def breakers(self) -> Sequence[Breaker]:
        """Return the breakers of limits and keys."""
        return self.limits.breaker, self.answers.breaker

    async def run(self) -> None:
        """Keep limits together for ever."""
        await self.limits.run()

    async def leave(self) -> None:
        """Tell the others; if they cannot be told, this replica's share ends by itself."""
        with suppress(Unavailable):
            await self.limits.leave()
