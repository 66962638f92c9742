from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Principal
from headway.features.arrow import with_times
from headway.features.historical import offline_features
from headway.features.join import pieces
from headway.features.join import plan as join_plan
from headway.features.join.plan import cut
from headway.features.join.point_in_time import in_place
from headway.features.join.runner import Here, Job
from headway.features.join.work import Work, evaluate
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from tests.features.histories import BY_CARD, LIMITS, MIXED, a_spine, limits
from tests.features.oracle import endless_view

FOREVER = replace(BY_CARD, name="forever", ttl=None)


@pytest.mark.parametrize("rows_per_task", [7, 100])
def test_a_hot_bucket_cut_by_time_gives_the_same(
    mixed_reader: LakeReader, analyst: Principal, rows_per_task: int
) -> None:
    spine = a_spine(300, 13)
    service = replace(MIXED, views=(*MIXED.views, FOREVER, endless_view(30)), features=())
    for cutoff in (True, False):
        expected = offline_features(spine, service, mixed_reader, analyst, "testing", cutoff=cutoff)
        found = offline_features(
            spine, service, mixed_reader, analyst, "testing", cutoff=cutoff, rows_per_task=rows_per_task
        )
        assert found.equals(expected) or found.to_pandas().equals(expected.to_pandas())


def rows_of(events: list[tuple[int, int, int]]) -> pa.Table:
    """(card, event_time, delay until it is known) → rows whose `visits` tell them apart."""
    n = len(events)
    return pa.table(
        {
            "card": pa.array([card for card, _, _ in events], pa.int64()),
            "change": pa.array([f"c{i % 3}" for i in range(n)], pa.string()),
            **{name: pa.nulls(n, kind) for name, kind in (("limit", pa.float32()), ("score", pa.float64()))},
            "visits": pa.array(range(n), pa.int64()),
            "blocked": pa.nulls(n, pa.bool_()),
            "tier": pa.nulls(n, pa.string()),
            "since": pa.nulls(n, pa.int64()),
            EVENT_TIME: pa.array([at for _, at, _ in events], pa.int64()),
            KNOWN_TIME: pa.array([at + delay for _, at, delay in events], pa.int64()),
        }
    )


KEYS = st.sampled_from([0, 0, 0, 1, 2])
"""Half of everything is of one key."""


@settings(deadline=None)
@given(
    events=st.lists(st.tuples(KEYS, st.integers(0, 40), st.sampled_from([0, 0, 1, 15])), max_size=60),
    labels=st.lists(st.tuples(KEYS | st.none(), st.integers(-2, 60)), min_size=1, max_size=40),
    files=st.integers(1, 4),
    rows_per_task=st.integers(1, 40),
    cutoff=st.booleans(),
    ttl=st.sampled_from([None, 5, 30]),
)
def test_cut_by_time_or_whole_is_the_same(
    events: list[tuple[int, int, int]],
    labels: list[tuple[int | None, int]],
    files: int,
    rows_per_task: int,
    cutoff: bool,
    ttl: int | None,
) -> None:
    view, table = replace(BY_CARD, ttl=ttl), rows_of(events)
    parts = [table.take(pa.array(range(first, len(events), files), pa.int64())) for first in range(files)]
    whole = Work(
        view=view,
        schema=table.schema,
        paths=(),
        keys=pa.table({"card": pa.array([key for key, _ in labels], pa.int64())}),
        at=np.array([at for _, at in labels], np.int64),
        cutoff=cutoff,
        span=None,
    )
    found, places = [], []
    for rows, job in join_plan.by_time(whole, parts, Here(), rows_per_task):
        found.append(evaluate(job.work, job.parts, job.carried))
        places.append(rows)
    expected = evaluate(whole, parts, ())
    assert in_place(expected.schema, found, places, len(labels)).equals(expected)


class Counting(Here):
    """Counts the source rows that each task reads, and those that are handed to it."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.carried: list[int] = []

    def last(self, work: Work, parts: Sequence[Any]) -> pa.Table:
        self.read.append(self.rows(work, parts))
        return super().last(work, parts)

    def count(self, job: Job) -> None:
        self.read.append(self.rows(job.work, job.parts))
        self.carried.append(sum(table.num_rows for table in job.carried))

    def rows(self, work: Work, parts: Sequence[Any]) -> int:
        return sum(piece(with_times(work.view)).num_rows for piece in work.pieces(parts, work.span))


@pytest.mark.parametrize("cutoff", [True, False])
def test_a_task_of_a_hot_key_reads_its_span_and_one_row_of_each_key(
    lake: Location, clock: ManualClock, analyst: Principal, cutoff: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row view that never expires: half of the label rows and of the source rows are of one key."""
    monkeypatch.setattr(pieces, "PIECE_ROWS", 500)
    rng = np.random.default_rng(3)
    source = limits(20_000, 1)
    card = np.where(rng.random(20_000) < 0.5, 7, source["card"].to_numpy())
    source = source.set_column(1, "card", pa.array(card))
    Committer(lake, clock).append(LIMITS, source, "all")
    reader = LakeReader(lake, MemoryAudit(clock), clock)
    n, rows_per_task = 4_000, 200
    keys = np.where(rng.random(n) < 0.5, 7, rng.integers(0, 20, n))
    at = rng.integers(0, 3_000, n)
    plan = reader.plan(LIMITS, analyst, "testing")
    runner, labels = Counting(), 0
    for rows, job in cut(FOREVER, plan, [], pa.table({"card": keys}), at, cutoff, runner, rows_per_task):
        runner.count(job)
        labels += len(rows)
        assert len(rows) <= rows_per_task
        for table in job.carried:
            assert len(set(table["card"].to_pylist())) == table.num_rows
    assert labels == n
    spans = n // rows_per_task
    assert len(runner.read) > 1.5 * spans
    assert sum(runner.read) < 2.5 * 20_000, "a source row is read by its span, and once to be carried"
    assert max(runner.read) < 3 * 20_000 / spans
    assert max(runner.carried) < 20 * spans
