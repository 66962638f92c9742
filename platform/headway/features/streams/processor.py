"""Brings one partition into lake and online store, each event once in its effect, wherever the process dies.

A micro-batch is decoded and merged into the online store at once, where events are known by their ids. The lake gets
segments of many micro-batches: their range is recorded, the batch appended under an id made of topic, partition and
offsets, then the checkpoint moves. What a crash left is done again from the checkpoint with the same outcome: messages
after a recorded range in any pieces, those of a recorded range as that very segment. Any fault drops what is in memory
and starts from there too, so the stream is the only buffer: while lake or online store is away, lag grows.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.errors import HeadwayError, NotFound, Unauthenticated, Unavailable
from headway.core.times import KNOWN_TIME
from headway.core.types import Principal
from headway.features.definitions import EventSource, View, WindowView
from headway.features.online_store import OnlineStore
from headway.features.streams.checkpoint import Claim, Fenced, Plan
from headway.features.streams.dead_letters import DEAD_LETTERS, table_of
from headway.features.streams.decoding import Decoder
from headway.features.streams.parts import Parts, Progress
from headway.features.streams.port import Message, OffsetBeyondEnd, RetentionGap, Topic
from headway.features.streams.quality import SegmentQuality, broken_promises
from headway.features.streams.segment import Segment, batch_id
from headway.features.streams.watermarks import Completeness

_LOG = logging.getLogger(__name__)


class PartitionProcessor:
    """One partition; not to be shared by threads."""

    def __init__(self, parts: Parts, partition: int) -> None:
        """Claim nothing yet: the first step does."""
        self.partition = partition
        self._parts = parts
        self._decoder = Decoder(parts.source, parts.views)
        history = None if parts.history is None else self._history
        self._online = OnlineStore(
            parts.online_url, clock=parts.clock, history=history, remembered=parts.limits.remembered_bytes
        )
        self._limit = parts.limits.batch_rows
        self._complete = Completeness(parts.online_url, self._online, partition)
        self._quality = SegmentQuality(parts.control, parts.audit)
        self._claim: Claim | None = None
        self._topic: Topic | None = None
        self._segment: Segment | None = None
        self._position = 0
        self._unknown: set[str] = set()
        self._fenced: Fenced | None = None

    def step(self, wait_s: float = 0.0, *, settle: bool = True) -> int:
        """Process one micro-batch and return how many messages it had, after waiting for the first.

        With `settle` a segment that is due goes to the lake before that.

        Raises Fenced, for good, where another processor took over. Any other error may pass: the next step starts again
        from the checkpoint.
        """
        return int(self._guarded(lambda: self._step(wait_s, settle)))

    def flush(self) -> None:
        """Bring what is pending to the lake and move the checkpoint."""
        self._guarded(self._finish)

    def feed(self, source: EventSource, views: Sequence[View]) -> None:
        """Feed these views, and no others, from now on; the next step fills those that are new from the lake."""
        parts = dataclasses.replace(self._parts, source=source, views=views)
        try:
            self.flush()
        except HeadwayError as error:  # what was in memory is dropped, and decoded again for the new views
            _LOG.warning("partition %d changes its views without a checkpoint: %s", self.partition, error)
        self._parts, self._decoder = parts, Decoder(source, views)
        self._unknown -= {*source.columns}

    def skip_gap(self) -> int:
        """Go on after messages that the stream dropped unread; return how many these were, and remember it."""
        return int(self._guarded(self._skip_gap))

    @property
    def progress(self) -> Progress:
        """Where it is."""
        at = None if self._claim is None else self._claim.checkpoint
        segment = self._segment
        return Progress(
            partition=self.partition,
            epoch=0 if at is None else at.epoch,
            position=self._position,
            checkpoint=0 if at is None else at.offset,
            watermark=self._complete.mark,
            pending_rows=0 if segment is None else segment.rows,
            pending_bytes=0 if segment is None else segment.size,
            rows=0 if at is None else at.rows,
            dead=0 if at is None else at.dead,
            lost=0 if at is None else at.lost,
            unknown=tuple(sorted(self._unknown)),
            broken=() if at is None else broken_promises(at.promises),
        )

    @property
    def due(self) -> int | None:
        """When what is pending has to go to the lake, UTC microseconds; None: nothing is."""
        return None if self._segment is None else self._segment.due

    def end(self) -> int:
        """Return the stream's next offset, beside `position` the lag."""
        _, topic = self._opened()
        return self._parts.stream.bounds(topic, self.partition).end

    def close(self) -> None:
        """Close the connections; what is pending is done again by the next processor."""
        self._drop()
        self._online.close()
        self._complete.close()

    def _guarded(self, act: Callable[[], Any]) -> Any:
        if self._fenced is not None:
            raise self._fenced
        try:
            return act()
        except Fenced as error:
            self._fenced = error
            raise
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        self._claim, self._segment = None, None

    def _opened(self) -> tuple[Claim, Topic]:
        if self._claim is None or self._topic is None:
            self._principal()
            self._topic = self._parts.stream.topic(self._parts.topic)
            claim = self._claim = Claim(self._parts.control, self._topic, self.partition)
            self._position = claim.checkpoint.offset
            self._complete.resume(claim.checkpoint.watermark)
            if claim.checkpoint.plan is not None:
                self._recover(claim.checkpoint.plan)
        return self._claim, self._topic

    def _step(self, wait_s: float, settle: bool) -> int:
        _, topic = self._opened()
        asked = self._parts.clock.now()
        if settle and self.due is not None and asked >= self.due:
            self._finish()
        messages = self._read(topic, wait_s)
        if not messages:
            self._advance(asked)
            return 0
        known = self._take(messages)
        self._advance(min(known, self._parts.clock.now()))
        assert self._segment is not None
        if self._segment.committed or self._segment.full(self._parts.limits):
            self._finish()
        return len(messages)

    def _read(self, topic: Topic, wait_s: float) -> list[Message]:
        """Return the next messages: twice as many as before while the stream has them waiting."""
        messages = self._parts.stream.read(topic, self.partition, self._position, limit=self._limit, wait_s=wait_s)
        limits, full = self._parts.limits, len(messages) == self._limit
        self._limit = min(2 * self._limit, limits.catch_up_rows) if full else limits.batch_rows
        return messages

    def _take(self, messages: Sequence[Message]) -> int:
        """Decode messages and merge them into the views; return the largest known_time among them."""
        if self._segment is None:
            now, age = self._parts.clock.now(), self._parts.limits.segment_age
            self._segment = Segment(first=self._position, end=self._position, horizon=now + age, due=now + age)
        rows = self._decode(self._segment, messages)
        self._write(rows)
        return int(np.max(rows[KNOWN_TIME].to_numpy())) if rows.num_rows else 0

    def _decode(self, segment: Segment, messages: Sequence[Message]) -> pa.Table:
        decoded = self._decoder.decode(messages, segment.horizon)
        self._unknown |= decoded.unknown
        self._position = messages[-1].offset + 1
        segment.add(decoded, self._position)
        return decoded.rows

    def _write(self, rows: pa.Table, views: Sequence[View] | None = None) -> None:
        if rows.num_rows:
            for view in self._parts.views if views is None else views:
                self._online.write(view, rows)

    def _advance(self, mark: int) -> None:
        _, topic = self._opened()
        self._complete.advance(topic, self._parts.views, mark, self._refill)

    def _refill(self, views: Sequence[View]) -> None:
        """Bring to views that are new, or lost what they had, what the lake has, and what is pending here."""
        if self._parts.refill is None:
            raise Unavailable(
                f"the online store lost events of {self._parts.source.name}",
                retry_after_s=60.0,
                hint="headway features materialize, then start the stream with refill",
            )
        with suppress(NotFound):  # a source that was never committed has nothing to bring back
            self._parts.refill(views)
        for rows in [] if self._segment is None else self._segment.tables:
            self._write(rows, views)

    def _recover(self, plan: Plan) -> None:
        """Make a recorded segment again and bring it everywhere; what has it already takes nothing."""
        assert self._topic is not None
        segment = Segment(first=plan.first, end=plan.first, horizon=plan.horizon, due=0)
        self._segment = segment
        while self._position < plan.end:
            limit = min(self._parts.limits.batch_rows, plan.end - self._position)
            messages = self._parts.stream.read(self._topic, self.partition, self._position, limit=limit, wait_s=1.0)
            inside = [message for message in messages if message.offset < plan.end]
            if inside:
                self._decode(segment, inside)
            elif messages:  # a compaction took the rest
                self._position = segment.end = plan.end
            else:
                self._require(plan.end)
        segment.planned = True
        for rows in segment.tables:
            self._write(rows)
        self._finish()

    def _require(self, end: int) -> None:
        """Raise OffsetBeyondEnd where the stream ends before an offset that was read already."""
        assert self._topic is not None
        bounds = self._parts.stream.bounds(self._topic, self.partition)
        if bounds.end < end:
            raise OffsetBeyondEnd(self._topic.name, self.partition, end, bounds.end)

    def _principal(self) -> Principal:
        """Return who ingests; Unauthenticated or Forbidden where nobody may."""
        principal = self._parts.principal()
        if principal.expires <= self._parts.clock.now():
            raise Unauthenticated(f"the identity of {principal.sub} has expired", hint="give the stream another")
        principal.require("ingest", self._parts.source.name)
        return principal

    def _history(self, view: WindowView, keys: npt.NDArray[np.generic]) -> pa.Table:
        """Return the lake's rows of keys; events that are pending here go there first, for they are part of them."""
        self._commit()
        assert self._parts.history is not None
        return self._parts.history(view, keys)

    def _commit(self) -> None:
        """Bring the segment to the lake."""
        segment = self._segment
        if segment is None or segment.committed:
            return
        claim, topic = self._opened()
        if not segment.planned:
            claim.save(msgspec.structs.replace(claim.checkpoint, plan=segment.plan))
            segment.planned = True
        principal = self._principal()
        batch = batch_id(topic, self.partition, segment.first, segment.end)
        if segment.dead:
            letters = table_of(self._parts.source.name, topic.name, self.partition, segment.dead)
            self._parts.committer.append(DEAD_LETTERS, letters, batch)
        if segment.rows:
            self._parts.committer.append(self._parts.source, segment.table(), batch)
        segment.committed = True
        self._parts.audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action="data.ingest",
            resource=f"{self._parts.source.table}#{batch}",
            purpose=principal.purpose,
            outcome="done",
        )

    def _finish(self) -> None:
        """Bring the segment to the lake, then move offset, watermark and counts in one step."""
        self._commit()
        segment = self._segment
        if segment is None:
            return
        claim, topic = self._opened()
        before = claim.checkpoint
        batch = batch_id(topic, self.partition, segment.first, segment.end)
        promises, source = before.promises, self._parts.source
        if segment.rows:
            promises = self._quality.after(segment.table(), segment.end, promises, source, self._principal(), batch)
        claim.save(
            msgspec.structs.replace(
                before,
                promises=promises,
                offset=segment.end,
                watermark=self._complete.mark,
                rows=before.rows + segment.rows,
                dead=before.dead + len(segment.dead),
                plan=None,
            )
        )
        self._segment = None
        self._parts.stream.release(topic, self.partition, segment.end)

    def _skip_gap(self) -> int:
        try:
            _, topic = self._opened()
            self._finish()
            self._parts.stream.read(topic, self.partition, self._position, limit=1)
        except RetentionGap as gap:
            assert self._claim is not None
            before = self._claim.checkpoint  # what is left of a recorded segment is read anew: ids tell events apart
            lost = gap.first - before.offset
            self._claim.save(msgspec.structs.replace(before, offset=gap.first, plan=None, lost=before.lost + lost))
            self._position, self._segment = gap.first, None
            return lost
        return 0
