"""Gives reasons beside the hot path: one thread, few at a time, within the caller's deadline, audited before told.

A decision that was made and logged is never lost because its reasons are late: it is answered without them and says
why. What can be known before (the explainer is not loaded yet, too many ask) refuses the call before it is decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from headway.core.clock import Clock
from headway.core.errors import Unavailable
from headway.core.types import Principal
from headway.governance.audit_event import AuditSink
from headway.models.explain import Explainer, to_score
from headway.serving.fallback import RULES_ARM
from headway.serving.protocol import Decision
from headway.serving.reasons import ExplainedDecision, Wording, explained, unexplained
from headway.serving.work import Answer, Call, Model

_LOG = logging.getLogger(__name__)
EXTRA_ROWS = 9
"""Rows that a limit counts for each explained row beyond the row itself. Reasons take more of the processor than a
decision, and tell a caller who copies the model a number per feature where a decision tells one."""
_AT_ONCE = 8
"""Calls that may wait for reasons in one replica."""
_RETRY_S = 30.0
"""How long a version that cannot be explained is left alone."""
_BUSY_S = 1.0
_AGREEMENT = 1e-4
"""Largest difference between the score that was served and the one that the contributions add up to."""


@dataclass(slots=True)
class _Opened:
    """The explainer of a loaded version, or the attempt to open it."""

    model: Any
    work: asyncio.Future[Explainer]
    retry_at: float


class Explaining:
    """Explains the decisions of one use case; lives on one event loop."""

    def __init__(
        self,
        use_case: str,
        *,
        open_explainer: Callable[[Any], Explainer],
        steps: Callable[[], Sequence[tuple[str, Model]]],
        wording: Wording,
        audit: AuditSink,
        clock: Clock,
    ) -> None:
        self._use_case = use_case
        self._open = open_explainer
        self._steps = steps
        self._wording = wording
        self._audit = audit
        self._clock = clock
        self._opened: dict[str, _Opened] = {}
        self._asking = 0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places of calls that want reasons; Unavailable if there is none."""
        if self._asking >= _AT_ONCE:
            raise Unavailable("too many decisions are being explained", retry_after_s=_BUSY_S, hint="ask for fewer")
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    async def ready(self, within_s: float) -> None:
        """Return when the version that serves can be explained; Unavailable if that takes longer, or never comes."""
        steps = self._steps()
        if not steps:
            return
        model = steps[0][1]
        opening = self._opening(model)
        try:
            if opening.done():
                opening.result()
            else:
                await asyncio.wait_for(asyncio.shield(opening), within_s)
        except TimeoutError:
            raise Unavailable("the explainer is being loaded", retry_after_s=_BUSY_S) from None
        except Exception as error:
            raise Unavailable(
                f"version {model.version} cannot be explained",
                retry_after_s=_RETRY_S,
                hint="decisions without explain are answered; the replica's log says why",
            ) from error

    async def explain(self, answer: Answer, call: Call, principal: Principal) -> list[ExplainedDecision]:
        """Return the decisions of an answer with their reasons, or with why they have none; never raises."""
        model, served = answer.model, answer.served
        if model is None or served is None:
            return [unexplained(decision, "decided without a model") for decision in answer.decisions]
        opened = self._opening(model)
        if not opened.done():  # the version changed, or a lower step of the ladder answered
            return [unexplained(decision, "the explainer is being loaded") for decision in answer.decisions]
        if opened.exception() is not None:
            return [unexplained(decision, "the version cannot be explained") for decision in answer.decisions]
        explainer = opened.result()
        left_s = call.deadline - self._clock.monotonic()

        def work() -> list[ExplainedDecision]:
            return self._explained(explainer, model, answer, call, principal)

        try:
            future = asyncio.get_running_loop().run_in_executor(self._executor, work)
            return await asyncio.wait_for(future, max(0.0, left_s))
        except TimeoutError:
            why = "not done before the deadline"
        except Exception as error:
            _LOG.error("explaining %s %s failed", self._use_case, model.version, exc_info=error)
            why = "failed"
        return [unexplained(decision, why) for decision in answer.decisions]

    def close(self) -> None:
        """Let go of the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _opening(self, model: Any) -> asyncio.Future[Explainer]:
        """Return the explainer of a version, opened once; those of versions that no longer serve are let go."""
        now = self._clock.monotonic()
        known = self._opened.get(model.version)
        if known is not None and known.model is model:
            failed = known.work.done() and (known.work.cancelled() or known.work.exception() is not None)
            if not failed or now < known.retry_at:
                return known.work
        serving = [other.version for _, other in self._steps()]
        self._opened = {name: one for name, one in self._opened.items() if name in serving}
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._open, model)
        work.add_done_callback(self._told)
        self._opened[model.version] = _Opened(model, work, now + _RETRY_S)
        return work

    def _told(self, work: asyncio.Future[Explainer]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            _LOG.error("%s cannot be explained", self._use_case, exc_info=error)

    def _explained(
        self, explainer: Explainer, model: Model, answer: Answer, call: Call, principal: Principal
    ) -> list[ExplainedDecision]:
        """Take the rows apart that the model decided, and record that it was told; in the thread."""
        assert answer.served is not None
        mine = [place for place, decision in enumerate(answer.decisions) if decision.arm != RULES_ARM]
        made = [unexplained(decision, "decided by rules") for decision in answer.decisions]
        if not mine:
            return made
        rows = answer.served[mine]
        found = explainer.explain(rows)
        decisions: list[Decision] = [answer.decisions[place] for place in mine]
        scores = to_score(found.margin, explainer.unit)
        agree = np.isclose(scores, [decision.score for decision in decisions], rtol=_AGREEMENT, atol=_AGREEMENT)
        if self._clock.monotonic() >= call.deadline:
            raise TimeoutError
        self._audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action="decision.explain",
            resource=f"decisions:{self._use_case}/{call.request_id}",
            purpose=principal.purpose,
            outcome=f"{len(mine)} by {explainer.method} of version {model.version}",
        )
        told = explained(decisions, rows, found, explainer, self._wording)
        for place, decision, same in zip(mine, told, agree.tolist(), strict=True):
            if same:
                made[place] = decision
            else:
                made[place] = unexplained(decision, "the reasons do not give the served score")
        return made
