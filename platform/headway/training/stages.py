"""A training as declared stages: each says what it is made of, is made or taken from the cache, shown and recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from headway.core.clock import Clock
from headway.core.errors import HeadwayError
from headway.core.progress import Progress, Stage
from headway.training.stage_cache import Kept, StageCache

Make = Callable[[Path, Stage], str]
"""Fills the folder of an entry and returns a note for whoever watches."""


class StageOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one stage."""

    name: str
    inputs_sha256: str
    seconds: float
    cached: bool
    outcome: str
    """done | cached | failed: what went wrong."""


@dataclass(kw_only=True)
class Stages:
    """The stages of one run, in order."""

    cache: StageCache
    progress: Progress
    clock: Clock
    record: Callable[[StageOutcome], None]
    """Called after each stage, the failed one too."""
    guard: Callable[[], None] = lambda: None
    """Called before each stage; raises where this run may not go on."""
    outcomes: list[StageOutcome] = field(default_factory=list)
    used: list[Path] = field(default_factory=list)
    """Folders of entries that this run stands on."""

    def run(
        self, name: str, inputs: Mapping[str, Any], make: Make, *, still: Callable[[Kept], bool] | None = None
    ) -> Kept:
        """Return what the stage made of exactly these inputs, made now unless it is kept.

        Args:
            name: Of the stage.
            inputs: All that decides its output, as builtin types.
            make: Makes the output.
            still: Whether what is kept still holds; what does not is made again.
        """
        self.guard()
        key = self.cache.key(name, inputs)
        start = self.clock.monotonic()
        cached = False
        try:
            with self.progress.stage(name) as stage:
                kept, damage = self.cache.find(name, key)
                if damage:
                    stage.note(f"the kept output cannot be used, {damage}: made again")
                if kept is not None and still is not None and not still(kept):
                    kept = None
                cached = kept is not None
                if kept is None:
                    kept = self.cache.put(name, key, inputs, lambda folder: make(folder, stage))
                if kept.entry.note:
                    stage.note(kept.entry.note)
                if cached:
                    stage.note("cached")
        except BaseException as error:
            said = error.message if isinstance(error, HeadwayError) else type(error).__name__
            self._done(name, key, start, cached=cached, outcome=f"failed: {said}"[:500])
            raise
        self._done(name, key, start, cached=cached, outcome="cached" if cached else "done")
        self.used.append(kept.folder)
        return kept

    def skip(self, name: str, key: str) -> None:
        """Say of a stage that nothing needs its output any more."""
        with self.progress.stage(name) as stage:
            stage.note("cached")
        self._done(name, key, self.clock.monotonic(), cached=True, outcome="cached")

    @property
    def seconds(self) -> dict[str, float]:
        """Return stage → seconds."""
        return {outcome.name: outcome.seconds for outcome in self.outcomes}

    def _done(self, name: str, key: str, start: float, *, cached: bool, outcome: str) -> None:
        made = StageOutcome(
            name=name, inputs_sha256=key, seconds=self.clock.monotonic() - start, cached=cached, outcome=outcome
        )
        self.outcomes.append(made)
        self.record(made)
