from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from features.churn import history
from features.loaders import cdnow
from headway.core.errors import CorruptState
from headway.core.times import DAY, format_time, parse_time


def test_the_published_numbers() -> None:
    purchases = cdnow.tables()["purchases"]
    assert purchases.num_rows == 69_659
    assert len(set(purchases["customer_id"].to_pylist())) == 23_570
    at = purchases["event_time"].to_numpy()
    assert format_time(int(at[0])).startswith("1997-01-01")
    assert format_time(int(at[-1])).startswith("1998-06-30")


def test_no_two_purchases_share_a_time_and_all_stay_in_their_day() -> None:
    purchases = cdnow.tables()["purchases"]
    at = purchases["event_time"].to_numpy()
    assert (np.diff(at) > 0).all()
    _, day, _ = cdnow._parse(cdnow.locate().read_bytes())
    assert np.array_equal(np.sort(day), at // DAY)


def test_the_first_line_of_the_file_arrives_unchanged() -> None:
    purchases = cdnow.tables()["purchases"].to_pylist()
    first = next(row for row in purchases if row["customer_id"] == 1)
    assert first["amount"] == pytest.approx(11.77)
    assert first["event_time"] // DAY == parse_time("1997-01-01") // DAY


def test_labels_agree_with_a_naive_count() -> None:
    rng = np.random.default_rng(1)
    customer = rng.integers(0, 40, 400)
    day = rng.integers(0, 500, 400)
    label = cdnow.buys_again(customer, day)
    for row in range(400):
        later = (customer == customer[row]) & (day > day[row]) & (day <= day[row] + 90)
        assert label[row] == int(later.any())


def test_a_second_purchase_of_the_day_is_no_return_and_ninety_days_are_inclusive() -> None:
    customer = np.array([1, 1, 2, 2, 3, 3])
    day = np.array([10, 10, 0, 90, 0, 91])
    assert cdnow.buys_again(customer, day).tolist() == [0, 0, 1, 0, 0, 0]


def test_labels_exist_only_where_the_data_reach_far_enough() -> None:
    found = cdnow.tables()
    outcomes = found["purchase_outcomes"]
    known = outcomes["known_time"].to_numpy()
    assert int(known.max()) <= cdnow.END
    assert np.array_equal(known - outcomes["event_time"].to_numpy(), np.full(known.size, 90 * DAY))
    assert outcomes.num_rows < found["purchases"].num_rows


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "CDNOW_master.txt"
    copy.write_bytes(cdnow.locate().read_bytes().replace(b"11.77", b"11.78", 1))
    with pytest.raises(CorruptState, match="SHA-256"):
        cdnow.tables(copy)


def test_the_heavy_package_is_not_imported() -> None:
    cdnow.tables()
    assert "lifetimes" not in sys.modules


def test_the_live_range_has_ten_thousand_purchases_and_some_known_labels() -> None:
    found = history.load(0)
    start, end = parse_time(history.live_from), parse_time(history.live_until)
    at = found["purchases"]["event_time"].to_numpy()
    assert int(((at >= start) & (at < end)).sum()) >= 10_000
    outcomes = found["purchase_outcomes"]
    live = outcomes["event_time"].to_numpy() >= start
    assert int((live & (outcomes["known_time"].to_numpy() < end)).sum()) >= 5_000
