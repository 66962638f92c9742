"""Codes of categories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import DefinitionError
from headway.features.categories import category_codes
from headway.features.definitions import FeatureService
from headway.features.kernel import kernel_sha256, matrix, transform

CHANNELS = ("web", "shop", "phone")


@given(st.lists(st.none() | st.sampled_from([*CHANNELS, "fax"]), min_size=1, max_size=20))
def test_a_code_is_the_position_of_its_value_and_does_not_depend_on_the_batch(values: list[str | None]) -> None:
    step = category_codes("channel", CHANNELS)
    column = np.array(values, dtype=object)
    codes = step.function({"channel": column})["channel_code"]
    assert codes.dtype == np.float32
    for value, code in zip(values, codes.tolist(), strict=True):
        assert CHANNELS[int(code)] == value if value in CHANNELS else np.isnan(code)
    single = [step.function({"channel": column[row : row + 1]})["channel_code"][0] for row in range(len(column))]
    np.testing.assert_array_equal(codes, np.array(single, np.float32))


def test_numbers_may_be_categories() -> None:
    step = category_codes("merchant_type", (5411, 5812), output="merchant")
    codes = step.function({"merchant_type": np.array([5812, 5411, 1])})["merchant"]
    np.testing.assert_array_equal(codes, np.array([1, 0, np.nan], np.float32))


def test_the_values_are_part_of_the_kernel() -> None:
    def service(*values: str) -> FeatureService:
        return FeatureService(
            name="s", views=(), request={"channel": "string"}, features=("channel_code",),
            transformations=(category_codes("channel", values),),
        )  # fmt: skip

    first, second = service("web", "shop"), service("shop", "web")
    assert kernel_sha256(first) != kernel_sha256(second)
    made = transform(first, {"channel": np.array(["shop", None], dtype=object)}, np.zeros(2, np.int64))
    np.testing.assert_array_equal(matrix(first, made), np.array([[1], [np.nan]], np.float32))


@pytest.mark.parametrize("values", [(), ("a", "a"), tuple(map(str, range(2_000)))])
def test_values_that_are_no_categories_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(DefinitionError, match=r"channel.categories"):
        category_codes("channel", values)
