"""Whether a decision could be answered now within the contract, and if not, which part is in the way.

Overload is none of it: a replica that is busy refuses some requests, but taken out it would burden the others. What a
part says is fixed text, for nobody needs a token to ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import numpy as np

from headway.core.clock import Clock
from headway.core.errors import HeadwayError
from headway.core.types import Columns
from headway.serving.schema import DecisionSchema
from headway.serving.scoring import Reader

_LOG = logging.getLogger(__name__)
LOOK_S = 1.0
Part = Callable[[], str | None]
"""Says what keeps it from its work, None if nothing does."""


class Readiness:
    """The parts of one replica."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts

    @property
    def ready(self) -> bool:
        """Whether no part objects."""
        return all(part() is None for part in self._parts.values())

    def parts(self) -> dict[str, str]:
        """Return part → `ok`, or what is in the way."""
        return {name: part() or "ok" for name, part in self._parts.items()}


class FeatureWatch:
    """Reads one key every second: a replica without traffic would not notice that the store went, or came back."""

    def __init__(self, reader: Reader, schema: DecisionSchema, clock: Clock, *, required: Callable[[], bool]) -> None:
        """Look at nothing yet.

        Args:
            reader: The replica's own.
            schema: Says what keys are made of.
            clock: Tells the present.
            required: Whether nothing can be answered without the store.
        """
        self._reader = reader
        self._clock = clock
        self._required = required
        self._keys: Columns = {
            name: np.array(["0"], object) if dtype == "string" else np.zeros(1, dtype) for name, dtype in schema.keys
        }
        self.reachable = True
        """Whether the last look succeeded."""

    def problem(self) -> str | None:
        """Say so where the store is away and nothing may be answered without it."""
        return "the online store does not answer, and the contract has no fallback" if self._missing() else None

    async def look(self) -> None:
        """Read a key."""
        try:
            await self._reader.read(self._keys, np.array([self._clock.now()], np.int64))
        except Exception as error:  # whatever it is, looking goes on
            if self.reachable:
                what = error.code if isinstance(error, HeadwayError) else type(error).__name__
                _LOG.warning("the online store does not answer: %s", what)
            self.reachable = False
        else:
            self.reachable = True

    async def follow(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    def _missing(self) -> bool:
        return not self.reachable and self._required()
