from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import DefinitionError, InvalidValue
from headway.core.times import DAY
from headway.features.quality.check import check
from headway.features.quality.expectations import Severity, usual_volume
from headway.features.quality.gate import Gate, admit, count
from headway.features.quality.profiles import Profiles
from headway.features.quality.quarantine import Quarantine
from headway.features.quality.volume import Volumes, unusual, usual
from tests.features.oracle import SOURCE, Event
from tests.features.samples import table

TODAY = 18_000


def history(*counts: int, day: int = TODAY) -> dict[int, int]:
    """The days before a day, the first of which is left out."""
    return dict(enumerate((1, *counts), day - len(counts) - 1))


def rows(day: int, number: int, first: int = 0) -> pa.Table:
    return table([Event(1, day * DAY, day * DAY + 1, 5, first + i) for i in range(number)])


def test_nothing_is_judged_before_enough_days_are_known() -> None:
    assert usual({}, TODAY, deviations=5, days=14) is None
    assert usual(history(*[100] * 13), TODAY, deviations=5, days=14) is None
    found = usual(history(*[100] * 14), TODAY, deviations=5, days=14)
    assert found is not None
    assert (found.low, found.high) == (50, 150)


def test_weekdays_have_their_own_volume_once_there_are_three_of_each() -> None:
    week = [1_000, 1_000, 1_000, 1_000, 1_000, 100, 0]
    for weeks, own in ((2, False), (3, True)):
        known = history(*week * weeks)
        for place, expected in enumerate(week):
            rule = usual(
                known | history(*week * weeks, *week[:place], day=TODAY + place), TODAY + place, deviations=5, days=14
            )
            assert rule is not None
            centre = (rule.low + rule.high) / 2
            assert (centre == expected) is (own or expected == 1_000)


@settings(deadline=None)
@given(st.lists(st.integers(900, 1_100), min_size=21, max_size=63), st.integers(0, 62), st.integers(0, 10**7))
def test_one_broken_day_moves_the_rule_little(counts: list[int], place: int, broken: int) -> None:
    changed = [*counts]
    changed[place % len(counts)] = broken
    for known in (counts, changed):
        rule = usual(history(*known), TODAY, deviations=5, days=14)
        assert rule is not None
        assert 0 <= rule.low <= 900
        assert 1_100 <= rule.high < 2_500


@settings(deadline=None)
@given(st.lists(st.integers(400, 5_000), min_size=14, max_size=63), st.integers(2, 50))
def test_a_larger_source_has_the_same_rule_in_proportion(counts: list[int], times: int) -> None:
    one = usual(history(*counts), TODAY, deviations=4, days=14)
    many = usual(history(*(count * times for count in counts)), TODAY, deviations=4, days=14)
    assert one is not None
    assert many is not None
    assert many.low == pytest.approx(one.low * times, rel=1e-9, abs=1e-6)
    assert many.high == pytest.approx(one.high * times, rel=1e-9)


def test_chance_alone_is_never_unusual() -> None:
    draw = np.random.default_rng(3)
    for level in (3, 40, 5_000):
        outside = 0
        for _ in range(300):
            counts = draw.poisson(level, 50).tolist()
            rule = usual(history(*counts[:-1]), TODAY, deviations=5, days=14)
            assert rule is not None
            outside += not rule.low <= counts[-1] <= rule.high
        assert outside == 0


def test_too_many_are_seen_at_once_and_too_few_when_the_day_is_over() -> None:
    promise = usual_volume()
    known = history(*[100] * 20)
    inside, after = TODAY * DAY + 1, (TODAY + 1) * DAY

    def said(number: int, now: int, more: int = 0, counted: bool = False) -> str:
        days = known | ({TODAY: more} if more else {})
        volumes = Volumes(rows=days, counted=frozenset([TODAY] if counted else []), now=now)
        return unusual(promise, rows(TODAY, number), volumes)

    assert said(10, inside) == ""
    assert said(10, after) == "2019-04-14 has 10 rows, 50 to 150 are usual"
    assert said(10, after, more=90) == ""
    assert said(151, inside).startswith("2019-04-14 has 151 rows")
    assert said(100, inside, more=100) != ""
    assert said(100, inside, more=100, counted=True) == "", "the batch is among them already"
    assert check(dataclasses.replace(SOURCE, expectations=(promise,)), rows(TODAY, 10)).findings[0].passed


@pytest.mark.parametrize("severity", [Severity.WARN, Severity.REJECT])
def test_a_delivery_that_comes_twice_under_another_name_is_noticed(
    tmp_path: Path, clock: ManualClock, severity: Severity
) -> None:
    source = dataclasses.replace(SOURCE, expectations=(usual_volume(severity=severity),))
    gate = Gate(quarantine=Quarantine(tmp_path, clock), profiles=Profiles(MemoryControlStore()))
    for day in range(TODAY - 20, TODAY + 1):
        for _ in range(2):  # repeating a batch changes nothing
            batch = rows(day, 100, first=100 * day)
            assert admit(source, batch, f"b{day}", gate, "s", now=(day + 1) * DAY).warnings == ()
            count(source, batch, f"b{day}", gate)
    again = rows(TODAY, 100)
    told = "usual_volume(5.0, 14): 2019-04-14 has 200 rows, 50 to 150 are usual"
    if severity is Severity.WARN:
        assert admit(source, again, "other", gate, "s", now=(TODAY + 1) * DAY).warnings == (told,)
        return
    with pytest.raises(InvalidValue, match="200 rows"):
        admit(source, again, "other", gate, "s", now=(TODAY + 1) * DAY)
    (case,) = gate.quarantine.cases()
    assert [case.report.line(finding) for finding in case.report.rejected] == [told]


@pytest.mark.parametrize(("deviations", "days"), [(0.0, 14), (-1.0, 14), (5.0, 6), (5.0, 57)])
def test_a_rule_that_cannot_hold_is_refused(deviations: float, days: int) -> None:
    with pytest.raises(DefinitionError, match="deviations"):
        usual_volume(deviations, days=days)
