"""Runs the loop's one current act beside the counting, because a retraining takes minutes and counts don't wait."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread

from headway.core.ports import Candidate, NewLabels, Promote, Redeploy, Retrain
from headway.monitoring.budget import RetrainPolicy
from headway.monitoring.loop import LoopState, Phase, Transition, on_candidate, on_labels, on_promoted, on_redeployed


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What the loop may do; the composition root fills them in."""

    new_labels: NewLabels
    retrain: Retrain
    promote: Promote
    redeploy: Redeploy


Continue = Callable[[LoopState], Transition]
"""What the outcome of an act does to the state."""
Act = Callable[[], Continue]
Run = Callable[[str, Act], "Future[Continue]"]
"""Starts the act of that name, or returns the future of the one already running under it."""


def act_of(state: LoopState, ports: Ports, policy: RetrainPolicy) -> Act:
    """Return the act of the state's phase; calling it returns what follows, or raises."""
    request = state.request
    assert request is not None, "an idle loop has no act"

    def labels() -> Continue:
        count = ports.new_labels(request.use_case, request.replaces, request.as_of)
        return lambda now: on_labels(now, count, policy)

    def retrain() -> Continue:
        candidate = ports.retrain(request)
        return lambda now: on_candidate(now, candidate)

    def promote() -> Continue:
        generation = ports.promote(request.use_case, _candidate(state), episode=request.episode, reason=request.reason)
        return lambda now: on_promoted(now, generation)

    def redeploy() -> Continue:
        ports.redeploy(request.use_case, state.generation, episode=request.episode)
        return on_redeployed

    acts: dict[Phase, Act] = {
        Phase.LABELS: labels,
        Phase.RETRAIN: retrain,
        Phase.PROMOTE: promote,
        Phase.REDEPLOY: redeploy,
    }
    return acts[state.phase]


class ThreadRunner:
    """Runs acts in daemon threads; one per process, so that a monitor reopened after a hiccup finds its act again."""

    def __init__(self) -> None:
        self._running: dict[str, Future[Continue]] = {}

    def __call__(self, name: str, act: Act) -> Future[Continue]:
        """Start the act unless it is running; its outcome or error will be in the future."""
        known = self._running.get(name)
        if known is not None and not known.done():
            return known
        future: Future[Continue] = Future()
        self._running = {name: future}

        def run() -> None:
            try:
                outcome = act()
            except BaseException as error:
                future.set_exception(error)  # the tick that collects it records it
            else:
                future.set_result(outcome)

        Thread(target=run, name=f"headway-{name}", daemon=True).start()
        return future


def in_place(name: str, act: Act) -> Future[Continue]:  # noqa: ARG001  # the port's signature
    """Run the act at once, for tests and one-shot commands."""
    future: Future[Continue] = Future()
    try:
        future.set_result(act())
    except Exception as error:
        future.set_exception(error)
    return future


def _candidate(state: LoopState) -> Candidate:
    assert state.candidate is not None, "promotion follows a candidate"
    return state.candidate
