"""A fenced lease: at most one holder acts at a time (a monitor, a training), and one that has lost it cannot write.

The expiry only decides when another may try. Safety does not rest on clocks: each acquisition raises the epoch, the
new holder writes its epoch into the state record, and every write is a compare-and-set, so that a late holder's write
fails.
"""

from __future__ import annotations

import msgspec

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import Conflict, CorruptState
from headway.core.times import SECOND

DURATION = 10 * SECOND


class LeaseLost(Conflict):
    """Another holder has taken over; whoever gets this must stop acting."""

    code = "lease_lost"


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds it."""

    holder: str
    epoch: int
    expires: int
    """UTC microseconds; 0 once released."""


class Lease:
    """One holder's view of the lease on `name`."""

    def __init__(self, store: ControlStore, name: str, *, holder: str, clock: Clock, duration: int = DURATION) -> None:
        self._store = store
        self._key = f"lease:{name}"
        self._holder = holder
        self._clock = clock
        self._duration = duration
        self._renew_at = 0
        self.epoch = 0

    def acquire(self) -> int:
        """Take the lease if it is free, expired or ours; return the new epoch. Conflict names the holder otherwise."""
        current, version = self._read()
        now = self._clock.now()
        if current is not None and current.holder != self._holder and current.expires > now:
            raise Conflict(f"{self._key} is held by {current.holder}", hint="it expires when its holder stops")
        epoch = 1 if current is None else current.epoch + 1
        self._write(epoch, now + self._duration, expected=version)
        self.epoch = epoch
        return epoch

    def held_by(self) -> str | None:
        """Return who holds it now, None where nobody does."""
        current, _ = self._read()
        return None if current is None or current.expires <= self._clock.now() else current.holder

    def check(self) -> None:
        """Raise LeaseLost if another epoch has begun; asks the store."""
        current, _ = self._read()
        if current is None or current.holder != self._holder or current.epoch != self.epoch:
            raise LeaseLost(f"{self._key}: epoch {self.epoch} is over")

    def keep(self) -> None:
        """Renew when a third of the duration has passed; LeaseLost if another epoch has begun."""
        now = self._clock.now()
        if now < self._renew_at:
            return
        current, version = self._read()
        if current is None or current.holder != self._holder or current.epoch != self.epoch:
            raise LeaseLost(f"{self._key}: epoch {self.epoch} is over")
        try:
            self._write(self.epoch, now + self._duration, expected=version)
        except Conflict as error:
            raise LeaseLost(f"{self._key}: taken while renewing epoch {self.epoch}") from error

    def release(self) -> None:
        """Let the next holder in at once; nothing happens if the lease is no longer ours."""
        current, version = self._read()
        if current is not None and current.holder == self._holder and current.epoch == self.epoch:
            self._write(self.epoch, 0, expected=version)

    def _read(self) -> tuple[LeaseRecord | None, int]:
        record = self._store.get(self._key)
        if record is None:
            return None, 0
        try:
            return msgspec.json.decode(record.value, type=LeaseRecord), record.version
        except msgspec.MsgspecError as error:
            raise CorruptState(
                f"{self._key} cannot be read: {error}", hint="delete this key in the control store"
            ) from error

    def _write(self, epoch: int, expires: int, *, expected: int) -> None:
        record = LeaseRecord(holder=self._holder, epoch=epoch, expires=expires)
        self._store.put(self._key, msgspec.json.encode(record), expected=expected)
        self._renew_at = self._clock.now() + self._duration // 3
