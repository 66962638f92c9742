"""How far a feed is: one record in the control store per source and feed, written once the stream has a chunk."""

from __future__ import annotations

import hashlib

import msgspec

from headway.core.control import ControlStore
from headway.core.errors import Conflict, CorruptState


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A position, and what was done up to it."""

    feed: str
    position: str
    """As the feed wrote it, JSON."""
    read: int = 0
    published: int = 0
    refused: int = 0


class Positions:
    """The mark of one feed into one source."""

    def __init__(self, store: ControlStore, source: str, feed: str) -> None:
        self._store = store
        self._feed = feed
        self.digest = hashlib.sha256(feed.encode()).hexdigest()[:32]
        """Tells the feed from others of the source."""
        self._key = f"feeds:{source}:{self.digest}"
        self._version = 0

    def load(self) -> Mark | None:
        """Return the mark; None before the first."""
        record = self._store.get(self._key)
        if record is None:
            return None
        self._version = record.version
        try:
            return msgspec.json.decode(record.value, type=Mark)
        except msgspec.MsgspecError as error:
            raise CorruptState(
                f"{self._key} cannot be read: {error}", hint="begin anew, which doubles nothing: --restart"
            ) from error

    def save(self, mark: Mark) -> None:
        """Replace the mark; Conflict where another process moves it too."""
        try:
            self._version = self._store.put(self._key, msgspec.json.encode(mark), expected=self._version)
        except Conflict as error:
            raise Conflict(
                f"another process reads {self._feed} too",
                hint="let one of them go on; nothing is lost or counted twice",
            ) from error
