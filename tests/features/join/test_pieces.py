from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.features.join import pieces
from headway.features.join.pieces import Span, file_pieces, table_pieces

SCHEMA = pa.schema(
    [("n", pa.int64()), ("event_time", pa.timestamp("us", "UTC")), ("known_time", pa.timestamp("us", "UTC"))]
)
ROWS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=40)


def table_of(rows: list[tuple[int, int]], first: int) -> pa.Table:
    event = [at for at, _ in rows]
    known = [at + delay for at, delay in rows]
    columns = {"n": list(range(first, first + len(rows))), "event_time": event, "known_time": known}
    return pa.table({name: pa.array(values, pa.int64()) for name, values in columns.items()}).cast(SCHEMA)


def plain(table: pa.Table) -> pa.Table:
    return table.cast(pa.schema([(name, pa.int64()) for name in SCHEMA.names]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    files=st.lists(ROWS, max_size=4),
    group=st.integers(1, 9),
    size=st.integers(1, 30),
    bounds=st.none() | st.tuples(st.integers(-5, 60), st.integers(-5, 80), st.booleans()),
)
def test_pieces_of_files_and_of_tables_are_the_rows_of_the_span(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[list[tuple[int, int]]],
    group: int,
    size: int,
    bounds: tuple[int, int, bool] | None,
) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", size)
    tables, paths = [], []
    for number, rows in enumerate(files):
        tables.append(table_of(rows, 100 * number))
        paths.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(tables[-1], paths[-1], row_group_size=group)
    span = None if bounds is None else Span(begin=bounds[0], end=bounds[1], known=bounds[2])

    def inside(row: dict[str, int]) -> bool:
        if span is None:
            return True
        moment = max(row["event_time"], row["known_time"]) if span.known else row["event_time"]
        return span.begin <= moment < span.end

    expected = [row for table in tables for row in plain(table).to_pylist() if inside(row)]
    found = [piece(SCHEMA.names) for piece in file_pieces(SCHEMA, paths, span)]
    assert [row for table in found for row in table.to_pylist()] == expected
    assert all(table.num_rows <= max(size, group) for table in found)
    held = [piece(SCHEMA.names) for piece in table_pieces([plain(table) for table in tables], span)]
    assert [row for table in held for row in table.to_pylist()] == expected


def test_row_groups_outside_the_span_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 10)
    path = str(tmp_path / "a.parquet")
    pq.write_table(table_of([(at, 0) for at in range(100)], 0), path, row_group_size=10)
    assert len(file_pieces(SCHEMA, [path])) == 10
    assert len(file_pieces(SCHEMA, [path], Span(begin=35, end=45))) == 2
    assert len(file_pieces(SCHEMA, [path], Span(begin=35, end=45, known=True))) == 2


def test_no_files_are_one_piece_without_rows() -> None:
    [piece] = file_pieces(SCHEMA, [])
    assert piece(["n", "event_time"]).schema == pa.schema([("n", pa.int64()), ("event_time", pa.int64())])
