"""Posted outcomes on their way into the sources that they feed: by the source's stream where one runs, else at once.

Called by the drainer with the outcomes that it has committed. An outcome waits until its decision is in the lake too;
what never becomes an event is a dead letter with its reason.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa

from headway.cluster.compose import Installation
from headway.cluster.ingesting import ingest_rows
from headway.cluster.stream_parts import views_of
from headway.core import ray_session
from headway.core.errors import InvalidValue, NotFound
from headway.core.times import DAY, format_duration
from headway.features.arrow import ARROW_TYPES
from headway.features.definitions import EventSource, View
from headway.features.distinct import first_known
from headway.features.lake.reader import read_files
from headway.features.outcomes import DECISION_ID, decision_columns, outcome_events, outcome_sources
from headway.features.quality.gate import QUARANTINED
from headway.features.quality.rows import broken_rows
from headway.features.streams import group
from headway.features.streams.dead_letters import DEAD_LETTERS, table_of
from headway.features.streams.decoding import DeadLetter, Decoder
from headway.features.streams.port import EventStream, Message, Topic, TopicGone
from headway.features.streams.publishing import keys_of
from headway.serving.outcome_ids import decided_ms
from headway.serving.outcome_queue import OutcomeQueue, Patience
from headway.serving.recorder import decisions_table

_LOG = logging.getLogger(__name__)
_MS = 1_000
_CHUNK = 1_000


def sources_fed(at: Installation, use_case: str) -> list[EventSource]:
    """Return the sources that outcomes of a use case feed; DefinitionError where one of any use case does not fit."""
    sources = at.project.collect("features", EventSource)
    fed = outcome_sources(sources, at.project.use_cases(), at.service)
    return [source for source in fed if source.outcomes is not None and source.outcomes.use_case == use_case]


class OutcomeFeed:
    """What becomes of a use case's outcomes in one round of its drainer."""

    def __init__(self, at: Installation, use_case: str, patience: Patience | None = None) -> None:
        self._at = at
        self._use_case = use_case
        self._patience = patience or Patience()
        self._sources = sources_fed(at, use_case)
        home = at.settings.home
        self._queues = {source.name: OutcomeQueue(home, source.name, self._patience) for source in self._sources}

    def take(self, outcomes: pa.Table, batch_id: str) -> None:
        """Keep committed outcomes for every source that they feed, on disk when this returns."""
        for queue in self._queues.values():
            queue.put(outcomes, batch_id.rpartition("/")[2], self._at.clock.now())

    def work(self) -> int:
        """Publish the outcomes whose decisions are in the lake; return how many. What fails is done again next time."""
        done = 0
        for source in self._sources:
            way = _Way(self._at, self._use_case, source, self._patience)
            done += self._queues[source.name].work(way.lookup, way.publish, way.give_up, self._at.clock.now())
        return done


class _Way:
    """From outcomes to events of one source."""

    def __init__(self, at: Installation, use_case: str, source: EventSource, patience: Patience) -> None:
        self._at, self._use_case, self._source, self._patience = at, use_case, source, patience
        self._service = at.service(use_case)

    def lookup(self, outcomes: pa.Table) -> pa.Table:
        """Return the events of the outcomes whose decisions are in the lake, which is read where their ids say when."""
        columns = decision_columns(self._source, self._service)
        try:
            decisions = self._decisions(outcomes[DECISION_ID].combine_chunks(), list(columns))
        except NotFound:  # none was committed yet
            decisions = pa.table({name: pa.array([], ARROW_TYPES[dtype]) for name, dtype in columns.items()})
        return outcome_events(self._source, self._service, decisions, outcomes)

    def _decisions(self, ids: pa.Array, names: Sequence[str]) -> pa.Table:
        at, table = self._at, decisions_table(self._use_case)
        decided = np.sort(np.array([decided_ms(item) for item in ids.to_pylist()], np.int64)) * _MS
        days = np.split(decided, np.flatnonzero(np.diff(decided // DAY)) + 1)
        purpose = at.contract(self._use_case).contract.privacy.purposes[0]
        worker = at.workload(f"headway-outcomes-{self._use_case}", ["data:read"], purpose)
        last = int(decided[-1]) + _MS - 1
        plan = at.reader.plan(table, worker, purpose, known_from=int(decided[0]), known_by=last)
        return read_files(
            plan.schema,
            plan.paths,
            [name for name in names if name in plan.schema.names],
            keys=(DECISION_ID, ids),
            known_in=[(int(day[0]), int(day[-1]) + _MS - 1) for day in days],
        )

    def publish(self, events: pa.Table, batch: str) -> None:
        """Hand events over: to the source's stream where one runs, else to lake and online store."""
        rows = first_known(events.drop_columns([DECISION_ID]), self._source.id)
        running = _running(self._at, self._source)
        if running is not None:
            stream, topic = running
            pairs = list(zip(keys_of(self._source, rows), _values(rows), strict=True))
            for begin in range(0, len(pairs), _CHUNK):
                stream.publish(topic, pairs[begin : begin + _CHUNK])
            return
        views = views_of(self._at, self._source)
        rows = self._accepted(rows, views, batch)
        odd = broken_rows(self._source, rows)
        for part, name in ((rows.filter(pa.array(~odd)), batch), (rows.filter(pa.array(odd)), f"{batch}-odd")):
            if part.num_rows:
                self._ingest(part, views, name)

    def _ingest(self, rows: pa.Table, views: Sequence[View], batch: str) -> None:
        """Ingest rows as a batch; one that breaks a promise of the source is held, once, and a person decides."""
        at, source = self._at, self._source
        if at.quality.quarantine.of_batch(source.name, batch):
            return
        principal = at.workload("headway-outcomes", [f"ingest:{source.name}"], "platform_operations")
        try:
            ingest_rows(at, source, rows, views, batch, principal=principal, quality=at.quality)
        except InvalidValue as error:
            if error.code != QUARANTINED:
                raise
            _LOG.warning("outcomes of %s: %s", self._use_case, error)

    def _accepted(self, rows: pa.Table, views: Sequence[View], batch: str) -> pa.Table:
        """Return the rows that lake and views can take; the others become dead letters."""
        reasons = Decoder(self._source, views).refused(rows, self._at.clock.now())
        if not reasons:
            return rows
        places = sorted(reasons)
        bad = rows.take(pa.array(places))
        self._dead(keys_of(self._source, bad), _values(bad), [reasons[place][1] for place in places], batch)
        return rows.filter(pa.array(~np.isin(np.arange(rows.num_rows), places)))

    def give_up(self, outcomes: pa.Table, batch: str) -> None:
        """Make dead letters of outcomes whose decision never came."""
        reason = f"no such decision came to the log in {format_duration(self._patience.age)}"
        _LOG.warning("%d outcomes of %s: %s", outcomes.num_rows, self._use_case, reason)
        keys = [item.encode() for item in outcomes[DECISION_ID].to_pylist()]
        self._dead(keys, _values(outcomes), [reason] * outcomes.num_rows, batch)

    def _dead(self, keys: Sequence[bytes], values: Sequence[bytes], reasons: Sequence[str], batch: str) -> None:
        now = self._at.clock.now()
        letters = [
            DeadLetter(message=Message(offset=place, key=key, value=value, published=now), reason=reason)
            for place, (key, value, reason) in enumerate(zip(keys, values, reasons, strict=True))
        ]
        table = table_of(self._source.name, f"outcomes.{self._use_case}", -1, letters)
        self._at.committer.append(DEAD_LETTERS, table, f"outcomes.{self._source.name}:{batch}")


def _running(at: Installation, source: EventSource) -> tuple[EventStream, Topic] | None:
    """Return stream and topic of a source while processors read it."""
    ray_session.connect(at.settings)
    if not group.running(source.name):
        return None
    try:
        return at.stream, at.stream.topic(source.name)
    except TopicGone:
        return None


def _values(rows: pa.Table) -> list[bytes]:
    return [msgspec.json.encode(row) for row in rows.to_pylist()]
