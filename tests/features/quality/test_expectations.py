from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from headway.core.errors import DefinitionError
from headway.features.quality.expectations import Expectation, between, not_null, one_of, rows_per_batch, unique
from tests.features.quality.test_check import SOURCE


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: between("price", 2, 1), "nothing lies between"),
        (lambda: between("price", None, None), "both bounds are open"),
        (lambda: between("price", 0, float("inf")), "nothing lies between"),
        (lambda: between("price", 0, float("nan")), "nothing lies between"),
        (lambda: rows_per_batch(None, None), "both bounds are open"),
        (lambda: not_null("price", tolerance=1.0), r"not_null\(price\)\.tolerance: 1.0 is no tolerance"),
        (lambda: not_null("price", tolerance=float("nan")), "no tolerance"),
        (lambda: one_of("channel", ()), "no value is allowed"),
        (unique, "no column"),
    ],
)
def test_what_nothing_could_keep_is_no_expectation(make: Callable[[], Expectation], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        make()


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (not_null("prise"), r"sales\.expectations: not_null\(prise\): .*did you mean 'price'"),
        (between("channel", 0, 1), r"'channel' is string; expected a column of int64, float32, float64"),
        (one_of("price", (1,)), "'price' is float32; expected a column of int64, string, bool"),
        (unique("weight"), "'weight' is float64"),
        (one_of("number", ("1",)), "'1' is no int64"),
        (one_of("number", (True,)), "True is no int64"),
        (between("price", 0, 1e39), "no float32 is so large"),
        (unique("id", "id"), "a column comes twice"),
    ],
)
def test_a_source_refuses_what_its_columns_cannot_keep(expectation: Expectation, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        dataclasses.replace(SOURCE, expectations=(expectation,))


def test_an_expectation_is_shown_as_it_is_written() -> None:
    assert between("price", 0, 10_000).name == "between(price, 0, 10000)"
    assert one_of("channel", ("web", "shop")).name == "one_of(channel, web, shop)"
    assert rows_per_batch(10, None).name == "rows_per_batch(10, None)"
