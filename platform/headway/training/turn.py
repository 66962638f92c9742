"""One training of a use case at a time: a lease in the control store, renewed while the run goes on.

A killed run blocks the next one for half a minute at most. A run that lost its lease, because its machine slept,
is stopped before its next stage: registering is one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import Conflict, HeadwayError
from headway.core.lease import Lease, LeaseLost
from headway.core.times import SECOND

DURATION = 30 * SECOND
_RENEWALS = 6


@contextmanager
def turn(
    store: ControlStore, use_case: str, *, holder: str, clock: Clock, duration: int = DURATION
) -> Iterator[Callable[[], None]]:
    """Hold the use case's turn; yield a check that raises LeaseLost once another run has it.

    Conflict names who has it.
    """
    lease = Lease(store, f"training:{use_case}", holder=holder, clock=clock, duration=duration)
    try:
        lease.acquire()
    except Conflict as error:
        raise Conflict(
            f"{use_case} is being trained by {lease.held_by() or 'somebody'}",
            hint=f"one training at a time; if that one was killed, its turn ends within {duration // SECOND} s",
        ) from error
    stop = threading.Event()
    keeper = threading.Thread(
        target=_keep, args=(lease, stop, duration / SECOND / _RENEWALS), name=f"turn-{use_case}", daemon=True
    )
    keeper.start()
    try:
        yield lease.check
    finally:
        stop.set()
        keeper.join()
        with suppress(HeadwayError):  # it expires by itself
            lease.release()


def _keep(lease: Lease, stop: threading.Event, period_s: float) -> None:
    """Renew until told to stop; a store that is away for a moment is asked again."""
    while not stop.wait(period_s):
        try:
            lease.keep()
        except LeaseLost:
            return
        except HeadwayError:
            continue
