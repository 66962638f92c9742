from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.telemetry.instruments import Instrument, Kind, Table

EDGES = (0.001, 0.01, 0.1)
SECONDS = Instrument(name="toy_seconds", kind=Kind.HISTOGRAM, help="time", labels=("who",))
TOTAL = Instrument(name="toy_total", kind=Kind.COUNTER, help="count", labels=("who",))
LEVEL = Instrument(name="toy_level", kind=Kind.GAUGE, help="level", labels=())
values = st.lists(st.one_of(st.sampled_from(EDGES), st.floats(0, 1)), max_size=50)


@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=4))
def test_a_histogram_counts_what_is_at_or_below_each_bound(parts: list[list[float]]) -> None:
    table = Table()
    for part in parts:
        table.observe(SECONDS, part, EDGES, "a")
    everything = [value for part in parts for value in part]
    shown = {(sample.name, dict(sample.labels).get("le")): sample.value for sample in table.samples()}
    for bound in EDGES:
        assert shown["toy_seconds_bucket", f"{bound:g}"] == sum(value <= bound for value in everything)
    assert shown["toy_seconds_bucket", "+Inf"] == shown["toy_seconds_count", None] == len(everything)
    assert math.isclose(shown["toy_seconds_sum", None], sum(everything), abs_tol=1e-9)
    assert table.count(SECONDS, "a") == len(everything)


def test_counters_and_gauges_show_their_labels() -> None:
    table = Table()
    table.add(TOTAL, 2, "a")
    table.add(TOTAL, 3, "a")
    table.add(TOTAL, 0, "b")
    table.set(LEVEL, 7)
    assert [(s.name, s.grows, s.labels, s.value) for s in table.samples()] == [
        ("toy_total", True, (("who", "a"),), 5),
        ("toy_total", True, (("who", "b"),), 0),
        ("toy_level", False, (), 7),
    ]
    assert table.labelled(TOTAL) == {("a",): 5, ("b",): 0}
    assert table.value(TOTAL, "nobody") == 0
