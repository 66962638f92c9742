from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.features.quality.digest import rows_sha256
from tests.features.quality.test_check import ROW, table


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=6), st.lists(ROW, min_size=1, max_size=6))
def test_equal_rows_have_equal_digests_however_they_are_chunked(
    rows: list[dict[str, Any]], others: list[dict[str, Any]]
) -> None:
    assert rows_sha256(table(rows)) == rows_sha256(table(rows, 2))
    sliced = table([*others, *rows, *others]).slice(len(others), len(rows))
    assert rows_sha256(sliced) == rows_sha256(table(rows)), "nothing of what lies around them counts"
    written = [{name: repr(value) for name, value in row.items()} for row in table(rows).to_pylist()]
    different = written != [{n: repr(v) for n, v in row.items()} for row in table(others).to_pylist()]
    assert (rows_sha256(table(rows)) != rows_sha256(table(others))) == different


def test_text_is_told_apart_where_it_is_cut() -> None:
    row = {"id": 1, "shop": 1, "price": None, "weight": None, "number": None, "paid": None}
    both = {"event_time": 0, "known_time": 0}
    cuts = [[{**row, **both, "channel": text} for text in pair] for pair in (("ab", "c"), ("a", "bc"), ("abc", ""))]
    assert len({rows_sha256(table(rows)) for rows in cuts}) == 3
