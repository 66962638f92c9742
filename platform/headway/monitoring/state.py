"""Everything a monitor knows, in one control-store record, so that cursor and counts can never disagree.

A delta is acknowledged by the write that holds both its counts and the cursor behind it: a killed actor reads what it
had not acknowledged again, and counts nothing twice.
"""

from __future__ import annotations

import msgspec

from headway.core.control import ControlStore
from headway.core.errors import Conflict, CorruptState
from headway.core.lease import LeaseLost
from headway.monitoring.alarms import Alarm, Finding
from headway.monitoring.loop import LoopState, Step

HISTORY = 20


class OpenWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the last verdict."""

    counts: bytes = b""
    """int64 little-endian, flat; empty: zeros."""
    rows: int = 0
    first_time: int = 0
    last_time: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a full window showed."""

    version: str
    first_time: int
    last_time: int
    rows: int
    alpha: float
    comparisons: int
    findings: tuple[Finding, ...]
    """Largest effects first, the first few and all that alarmed."""
    alarm: str | None
    """Its alarm's id."""


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by fate; `compared` + `set_aside` + the open window is what replicas counted, less `lost` deltas."""

    compared: int = 0
    set_aside: dict[str, int] = {}
    """Reason → rows that must not be merged: other_version, other_profile, malformed, superseded."""
    duplicate_deltas: int = 0
    lost_deltas: int = 0
    """Gaps in replicas' sequences: counts that a replica could not publish or the stream no longer held."""


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """The record `monitor:<use case>`."""

    epoch: int = 0
    """Lease epoch of the last writer."""
    cursor: str = ""
    version: str = ""
    """Champion whose window is open."""
    profile_sha256: str = ""
    window: OpenWindow = OpenWindow()
    accounted_until: int = 0
    """Decision time up to which the false-alarm budget is used."""
    sequences: dict[str, int] = {}
    """Replica → next expected sequence, newest last."""
    accounts: Accounts = Accounts()
    verdicts: tuple[Verdict, ...] = ()
    """Newest last."""
    alarms: tuple[Alarm, ...] = ()
    """Newest last."""
    alarms_total: int = 0
    windows_total: int = 0
    budget_used: float = 0.0
    """Sum of the windows' alphas: expected false alarms so far are at most this."""
    loop: LoopState = LoopState()
    outbox: tuple[Step, ...] = ()
    """Steps taken and not yet audited; written to the log before they are cleared, so at least once."""


def state_key(use_case: str) -> str:
    """Return the control-store key of a use case's monitor."""
    return f"monitor:{use_case}"


def read_state(store: ControlStore, use_case: str) -> MonitorState:
    """Return the state for display; an unwritten one is empty."""
    return _decode(store, use_case)[0]


def reset_state(store: ControlStore, use_case: str) -> None:
    """Forget windows, alarms and episodes, for a replay that starts over; the place in the stream of counts stays.

    Only for a stopped monitor: a running one loses its lease by it. Conflict if somebody writes at this moment.
    """
    state, version = _decode(store, use_case)
    if version:
        fresh = MonitorState(epoch=state.epoch, cursor=state.cursor, sequences=state.sequences)
        store.put(state_key(use_case), msgspec.msgpack.encode(fresh), expected=version)


class StateStore:
    """Reads and writes one monitor's state under one epoch."""

    def __init__(self, store: ControlStore, use_case: str, epoch: int) -> None:
        self._store = store
        self._use_case = use_case
        self._epoch = epoch
        self._version = 0

    def open(self) -> MonitorState:
        """Read the state and write our epoch into it: from here on every older holder's write fails.

        Raises LeaseLost if a newer epoch has written, or writes at this moment.
        """
        state, self._version = _decode(self._store, self._use_case)
        if state.epoch > self._epoch:
            raise LeaseLost(f"monitor {self._use_case}: epoch {self._epoch} is over, {state.epoch} has begun")
        return self.save(state)

    def save(self, state: MonitorState) -> MonitorState:
        """Write the state; LeaseLost if anybody else has written since."""
        state = msgspec.structs.replace(state, epoch=self._epoch)
        try:
            self._version = self._store.put(
                state_key(self._use_case), msgspec.msgpack.encode(state), expected=self._version
            )
        except Conflict as error:
            raise LeaseLost(f"monitor {self._use_case}: another monitor has written the state") from error
        return state


def _decode(store: ControlStore, use_case: str) -> tuple[MonitorState, int]:
    record = store.get(state_key(use_case))
    if record is None:
        return MonitorState(), 0
    try:
        return msgspec.msgpack.decode(record.value, type=MonitorState), record.version
    except msgspec.MsgspecError as error:
        raise CorruptState(
            f"the state of monitor {use_case} cannot be read: {error}",
            hint=f"copy and then delete the control-store key headway:{state_key(use_case)}: the monitor starts anew",
        ) from error
