"""How far a partition is: one record, changed by compare-and-set, so that only one processor can move it.

Before a segment goes to the lake its range is written down (`Plan`): after a crash the same messages make the same
batch, under the same id, and the lake takes it once. The state itself needs no such care: the online store knows each
event by its id. Offset, watermark and counts move in one step, once lake and online store have the segment.
"""

from __future__ import annotations

import msgspec

from headway.core.control import ControlStore
from headway.core.errors import Conflict, CorruptState
from headway.features.streams.port import Topic
from headway.features.streams.quality import Tally

_ATTEMPTS = 5


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A segment on its way to the lake: first ≤ offset < end."""

    first: int
    end: int
    horizon: int
    """What counted as the present when it was decoded, UTC microseconds."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What is in lake and online store."""

    identity: str
    """Of the topic; offsets of another one mean nothing."""
    offset: int = 0
    """The first message that is not safe yet."""
    watermark: int = 0
    """known_time up to which the partition's events are there."""
    rows: int = 0
    dead: int = 0
    """Messages that became dead letters."""
    lost: int = 0
    """Messages that were skipped because the stream no longer had them."""
    epoch: int = 0
    """Grows with every processor that takes over."""
    promises: dict[str, Tally] = {}
    """How the source keeps what it promised of many rows."""
    plan: Plan | None = None


class Fenced(Conflict):
    """Another processor has taken the partition over; whoever gets this must stop."""

    code = "fenced"


class Claim:
    """One processor's hold on a partition's checkpoint."""

    def __init__(self, store: ControlStore, topic: Topic, partition: int) -> None:
        """Take the partition over from whoever had it: what that one tries to record from now on fails."""
        self._store = store
        self._key = key_of(topic.name, partition)
        for _ in range(_ATTEMPTS):
            record = store.get(self._key)
            before = Checkpoint(identity=topic.identity) if record is None else _decode(self._key, record.value)
            self.replaced = before.identity != topic.identity
            """Whether the topic was made anew since the last checkpoint."""
            if self.replaced:
                left = 0 if before.plan is None else before.plan.end - before.plan.first
                before = msgspec.structs.replace(
                    before, identity=topic.identity, offset=0, plan=None, lost=before.lost + left
                )
            self.checkpoint = msgspec.structs.replace(before, epoch=before.epoch + 1)
            try:
                self._version = store.put(
                    self._key, msgspec.json.encode(self.checkpoint), expected=record.version if record else 0
                )
            except Conflict:
                continue
            return
        raise Conflict(f"{self._key} is being taken over by others", hint="one group of processors per topic")

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; Fenced where another processor has the partition."""
        try:
            self._version = self._store.put(self._key, msgspec.json.encode(checkpoint), expected=self._version)
        except Conflict as error:
            raise Fenced(f"{self._key}: epoch {self.checkpoint.epoch} is over") from error
        self.checkpoint = checkpoint


def key_of(topic: str, partition: int) -> str:
    """Return the record's key in the control store."""
    return f"streams:{topic}:{partition}"


def read(store: ControlStore, topic: Topic, partition: int) -> Checkpoint:
    """Return the checkpoint as it is, without taking over."""
    key = key_of(topic.name, partition)
    record = store.get(key)
    return Checkpoint(identity=topic.identity) if record is None else _decode(key, record.value)


def _decode(key: str, value: bytes) -> Checkpoint:
    try:
        return msgspec.json.decode(value, type=Checkpoint)
    except msgspec.MsgspecError as error:
        raise CorruptState(
            f"{key} cannot be read: {error}", hint="keep it and look at it: without it the topic is read anew"
        ) from error
