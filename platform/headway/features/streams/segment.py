"""A stretch of one partition that goes to the lake as one batch, and how large it may become."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from headway.core.times import SECOND
from headway.features.streams.checkpoint import Plan
from headway.features.streams.decoding import DeadLetter, Decoded
from headway.features.streams.port import Topic


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one partition may hold in memory, and how long the lake may be behind."""

    batch_rows: int = 5_000
    """Messages per write to the online store, while it keeps up."""
    catch_up_rows: int = 40_000
    """The same at most while more wait: a key that has several events among them is read and written once."""
    remembered_bytes: int = 64 << 20
    """Of values of the online store that are kept here, per processor."""
    segment_rows: int = 200_000
    """Messages per batch of the lake."""
    segment_bytes: int = 64 << 20
    segment_age: int = 10 * SECOND
    """Microseconds after which a segment goes to the lake, however small it is."""


@dataclass(kw_only=True)
class Segment:
    """What was decoded and is not safe yet."""

    first: int
    end: int
    horizon: int
    """What counts as the present while it is decoded."""
    due: int
    """When it has to go to the lake."""
    tables: list[pa.Table] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    planned: bool = False
    """Whether its range is recorded: nothing may be added then."""
    committed: bool = False
    """Whether the lake has it."""

    def table(self) -> pa.Table:
        """Return all rows; there are some."""
        return pa.concat_tables(self.tables)

    def add(self, decoded: Decoded, end: int) -> None:
        """Append what a batch of messages before offset `end` held."""
        self.tables.append(decoded.rows)
        self.dead += decoded.dead
        self.rows += decoded.rows.num_rows
        self.size += decoded.rows.nbytes + sum(len(letter.message.value) for letter in decoded.dead)
        self.end = end

    def full(self, limits: Limits) -> bool:
        """Whether it has to go to the lake because of its size."""
        return self.end - self.first >= limits.segment_rows or self.size >= limits.segment_bytes

    @property
    def plan(self) -> Plan:
        """Its range."""
        return Plan(first=self.first, end=self.end, horizon=self.horizon)


def batch_id(topic: Topic, partition: int, first: int, end: int) -> str:
    """Return the identity of a segment in the lake."""
    return f"{topic.name}@{topic.identity[:12]}:{partition}:{first}-{end - 1}"
