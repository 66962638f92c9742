from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headway.core.times import DAY, HOUR
from headway.features.lake.retention import Retention, expirable

NOW = 100 * DAY
MOMENTS = st.lists(st.integers(0, NOW), unique=True, min_size=1, max_size=80)


@given(MOMENTS, st.sets(st.integers(0, 79)), st.integers(0, 5))
def test_what_is_newest_pinned_or_the_last_of_its_hour_or_day_stays(
    moments: list[int], keep: set[int], newest: int
) -> None:
    listed = list(enumerate(sorted(moments)))
    retention = Retention(newest=newest)
    gone = expirable(listed, keep, NOW, retention)
    stay = [(number, at) for number, at in listed if number not in gone]
    assert gone == sorted(gone)
    assert not keep & set(gone)
    assert listed[-1] in stay
    assert stay[-newest:] == listed[-newest:] or not newest
    for number, at in listed:
        for span, period in ((retention.hourly, HOUR), (retention.daily, DAY)):
            if at > NOW - span:
                assert any(number <= other and at // period == moment // period for other, moment in stay)
    bound = max(1, newest) + len(keep) + retention.hourly // HOUR + 1 + retention.daily // DAY + 1
    assert len(stay) <= bound


def test_nothing_of_an_empty_table_goes() -> None:
    assert expirable([], [], NOW, Retention()) == []
