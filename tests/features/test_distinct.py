from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from headway.features.distinct import first_known

SMALL = st.integers(0, 3)
ROW = st.tuples(st.none() | st.integers(0, 5), SMALL, SMALL, st.none() | SMALL)
NAMES = ("id", "known_time", "event_time", "value")


def rows_of(rows: list[tuple[int | None, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(NAMES)
    return pa.table({name: pa.array(column, pa.int64()) for name, column in zip(NAMES, columns, strict=True)})


@given(st.lists(ROW, max_size=30), st.integers(1, 5))
def test_each_id_counts_once_as_it_was_known_first(rows: list[tuple[int | None, ...]], chunks: int) -> None:
    table = rows_of(rows)
    size = max(1, -(-len(rows) // chunks))
    pieces = pa.concat_tables([table.slice(begin, size) for begin in range(0, max(1, len(rows)), size)])
    found = first_known(pieces, "id")
    best: dict[int, tuple[tuple[float, ...], int]] = {}
    for place, (identity, known, event, value) in enumerate(rows):
        if identity is not None:
            assert known is not None
            assert event is not None
            rank = ((known, event, float("inf") if value is None else value, place), place)
            best[identity] = min(best.get(identity, rank), rank)
    kept = sorted([place for _, place in best.values()] + [i for i, row in enumerate(rows) if row[0] is None])
    assert found.to_pylist() == [table.to_pylist()[place] for place in kept]


def test_text_ids_and_no_rows() -> None:
    table = pa.table({"id": ["b", "a", "b"], "known_time": [3, 1, 2], "event_time": [0, 0, 0]})
    assert first_known(table, "id")["known_time"].to_pylist() == [1, 2]
    assert first_known(table.slice(0, 0), "id").num_rows == 0
