from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.types import Int64
from headway.features.join.as_of import NONE, AsOf, Found, as_of, group
from headway.features.status import Status


@dataclass(frozen=True)
class Row:
    key: int
    event_time: int
    known_time: int | None
    id: int


def oracle(rows: list[Row], key: int, t: int, ttl: int | None, cutoff: bool) -> tuple[int, Status]:
    """The definition: position of the row that counts, and what the label row rests on."""
    seen = []
    for position, row in enumerate(rows):
        known = row.known_time is not None and row.known_time <= t
        if row.key == key and key >= 0 and row.event_time <= t and (known or not cutoff):
            known_time = NONE if row.known_time is None else row.known_time
            seen.append(((row.event_time, known_time, row.id, position), row.event_time))
    if not seen:
        return -1, Status.MISSING
    rank, event_time = max(seen)
    if ttl and t - event_time > ttl:
        return -1, Status.EXPIRED
    return rank[3], Status.PRESENT


def columns(rows: list[Row]) -> tuple[Int64, Int64, Int64, Int64]:
    known = [NONE if r.known_time is None else r.known_time for r in rows]
    return (
        np.array([r.key for r in rows], np.int64),
        np.array([r.event_time for r in rows], np.int64),
        np.array(known, np.int64),
        np.array([r.id for r in rows], np.int64),
    )


def check(found: Found, rows: list[Row], labels: list[tuple[int, int]], ttl: int | None, cutoff: bool) -> None:
    expected = [oracle(rows, key, t, ttl, cutoff) for key, t in labels]
    assert found.row.tolist() == [position for position, _ in expected]
    assert found.status.tolist() == [int(status) for _, status in expected]


@st.composite
def sources(draw: st.DrawFn) -> list[Row]:
    """Few keys and close times, so that ties, late rows and unknown times are common; −1 belongs to no label."""
    late = st.one_of(st.none(), st.just(0), st.integers(-3, 30))
    times = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 40)), max_size=60)
    return [
        Row(key, at, None if (d := draw(late)) is None else at + d, draw(st.integers(0, 3))) for key, at in draw(times)
    ]


LABELS = st.lists(st.tuples(st.integers(-1, 4), st.integers(-2, 60)), max_size=40)
TTLS = st.one_of(st.none(), st.just(0), st.integers(1, 30))


@settings(max_examples=300, deadline=None)
@given(rows=sources(), labels=LABELS, ttl=TTLS, cutoff=st.booleans())
def test_agrees_with_the_oracle(rows: list[Row], labels: list[tuple[int, int]], ttl: int | None, cutoff: bool) -> None:
    key, at = np.array([k for k, _ in labels], np.int64), np.array([t for _, t in labels], np.int64)
    check(as_of(key, at, *columns(rows), keys=5, ttl=ttl, cutoff=cutoff), rows, labels, ttl, cutoff)


@settings(max_examples=200, deadline=None)
@given(rows=sources(), labels=LABELS, ttl=TTLS, cutoff=st.booleans(), pieces=st.integers(1, 7), data=st.data())
def test_does_not_depend_on_how_the_source_is_cut(
    rows: list[Row], labels: list[tuple[int, int]], ttl: int | None, cutoff: bool, pieces: int, data: st.DataObject
) -> None:
    key, at = np.array([k for k, _ in labels], np.int64), np.array([t for _, t in labels], np.int64)
    grouped = group(key, at, 5)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=pieces - 1, max_size=pieces - 1)))
    bounds = [0, *cuts, len(rows)]
    parts = []
    for begin, end in itertools.pairwise(bounds):
        part = AsOf(grouped, cutoff=cutoff)
        part.add(*(c[begin:end] for c in columns(rows)), first=begin)
        parts.append(part.candidates())
    whole = AsOf(grouped, cutoff=cutoff)
    for candidates in data.draw(st.permutations(parts)):
        whole.merge(candidates)
    check(whole.found(ttl), rows, labels, ttl, cutoff)


def one(rows: list[Row], t: int, *, ttl: int | None = None, cutoff: bool = False) -> tuple[int, Status]:
    found = as_of(np.array([0]), np.array([t]), *columns(rows), keys=1, ttl=ttl, cutoff=cutoff)
    return int(found.row[0]), Status(found.status[0])


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (999, (-1, Status.MISSING)),
        (1_000, (0, Status.PRESENT)),
        (1_500, (0, Status.PRESENT)),
        (1_501, (-1, Status.EXPIRED)),
    ],
)
def test_both_bounds_are_inclusive_to_the_microsecond(t: int, expected: tuple[int, Status]) -> None:
    assert one([Row(0, 1_000, 1_000, 1)], t, ttl=500) == expected


def test_a_lifetime_of_nothing_is_for_ever() -> None:
    for ttl in (None, 0):
        assert one([Row(0, 0, 0, 1)], 2**60, ttl=ttl) == (0, Status.PRESENT)


def test_ties_go_to_the_last_known_then_the_greatest_id_then_the_last_row() -> None:
    assert one([Row(0, 5, 9, 1), Row(0, 5, 8, 2)], 10)[0] == 0
    assert one([Row(0, 5, 9, 2), Row(0, 5, 9, 1)], 10)[0] == 0
    assert one([Row(0, 5, 9, 1), Row(0, 5, 9, 1)], 10)[0] == 1
    assert one([Row(0, 5, None, 7), Row(0, 5, 0, 1)], 10)[0] == 1


def test_a_row_known_late_is_passed_over_until_it_is_known() -> None:
    rows = [Row(0, 5, 5, 1), Row(0, 6, 20, 2)]
    assert one(rows, 19, cutoff=True)[0] == 0
    assert one(rows, 20, cutoff=True)[0] == 1
    assert one(rows, 19)[0] == 1
    assert one([Row(0, 6, None, 2)], 19, cutoff=True) == (-1, Status.MISSING)


def test_nothing_on_either_side() -> None:
    nothing = np.empty(0, np.int64)
    assert len(as_of(nothing, nothing, *columns([Row(0, 1, 1, 1)]), keys=1).row) == 0
    found = as_of(np.array([0, -1]), np.array([5, 5]), *columns([]), keys=1)
    assert found.row.tolist() == [-1, -1]
    assert found.status.tolist() == [int(Status.MISSING)] * 2


def test_ties_are_counted() -> None:
    walk = AsOf(group(np.array([0]), np.array([9]), 1))
    assert walk.add(np.array([0, 0, 0]), np.array([1, 2, 2]), np.array([1, 2, 2])) == 1


def test_times_too_far_apart_for_one_number() -> None:
    key, at = np.array([1, 0, 1]), np.array([-(2**61), 3, 2**61])
    found = as_of(key, at, np.array([1, 1]), np.array([-(2**61), 5]), keys=2)
    assert found.row.tolist() == [0, -1, 1]
