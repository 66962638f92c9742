"""A row-wise SQL query as a function over columns, run by DuckDB over Arrow in training, stream and request alike.

A query that looked at other rows would give one value in a training block and another in a request of one row, so only
scalar, deterministic expressions are accepted; the parsed query is checked when it is declared, not when it serves.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from headway.core.errors import DefinitionError
from headway.core.types import Columns

TABLE = "input"
_SHAPE = "SELECT … FROM input"
_CLASSES = frozenset(
    ("FUNCTION", "COLUMN_REF", "CONSTANT", "CAST", "CASE", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "TYPE")
)
_MACROS = frozenset(("nullif", "fdiv", "fmod", "round_even", "ifnull"))
"""Built-in macros that expand to scalar expressions."""
_EMPTY = ("where_clause", "group_expressions", "group_sets", "having", "sample", "qualify", "modifiers")
_LOCAL = threading.local()


class RowwiseSql:
    """A checked query; pickled as its text, connected once per thread."""

    def __init__(self, name: str, query: str) -> None:
        self.name = name
        self.query = query
        self.outputs, self.inputs = _checked(name, query)

    def __reduce__(self) -> tuple[Any, ...]:
        """Connections stay behind."""
        return RowwiseSql, (self.name, self.query)

    def __call__(self, columns: Columns) -> Columns:
        """Return one float column per output, missing values as NaN."""
        import pyarrow as pa  # only where SQL is used: replicas start without it

        # NaN becomes null: to SQL it would be the largest number
        table = pa.table({name: pa.array(columns[name], from_pandas=True) for name in self.inputs})
        found = _connection().from_arrow(table).query(TABLE, self.query).to_arrow_table()
        made: Columns = {}
        for name in self.outputs:
            try:
                column = found[name].cast(pa.float64())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise DefinitionError(
                    f"gives {found[name].type}", field=f"{self.name}.{name}", expected="a number or a truth value"
                ) from None
            made[name] = column.to_numpy()
        return made


def _connection() -> Any:
    found = getattr(_LOCAL, "connection", None)
    if found is None:
        import duckdb

        settings = {"threads": 1, "enable_external_access": False, "autoinstall_known_extensions": False}
        found = _LOCAL.connection = duckdb.connect(":memory:", config=settings)
        found.execute("SET TimeZone = 'UTC'")
        found.execute("SET lock_configuration = true")
    return found


def _checked(name: str, query: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the query's outputs and the columns it reads; DefinitionError says what it may not do."""
    parsed = json.loads(_connection().execute("SELECT json_serialize_sql(?)", [query]).fetchone()[0])
    if parsed.get("error"):
        raise DefinitionError(parsed.get("error_message", "not SQL"), field=name, expected=_SHAPE)
    if len(parsed["statements"]) != 1 or parsed["statements"][0]["node"]["type"] != "SELECT_NODE":
        raise DefinitionError("more than one SELECT", field=name, expected=f"one {_SHAPE}")
    node = parsed["statements"][0]["node"]
    source = node["from_table"]
    if source["type"] != "BASE_TABLE" or source["table_name"] != TABLE or source["schema_name"]:
        raise DefinitionError("reads something else", field=name, expected=f"FROM {TABLE}, and nothing joined to it")
    asked = [part for part in _EMPTY if node.get(part)]
    if asked or node["cte_map"]["map"]:
        what = asked[0].replace("_", " ") if asked else "WITH"
        raise DefinitionError(f"uses {what}", field=name, expected="scalar expressions: one row out for each row in")
    inputs: dict[str, None] = {}
    for expression in _expressions(node["select_list"]):
        kind = expression["class"]
        if kind not in _CLASSES:
            raise DefinitionError(f"uses {kind.lower()}", field=name, expected="scalar expressions of columns by name")
        if kind == "COLUMN_REF":
            inputs[expression["column_names"][-1]] = None
        elif kind == "FUNCTION":
            _check_function(name, expression)
    outputs = [expression["alias"] for expression in node["select_list"]]
    if not all(outputs) or len(set(outputs)) != len(outputs):
        raise DefinitionError("an expression without a name of its own", field=name, expected="… AS <output>")
    return tuple(outputs), tuple(inputs)


def _expressions(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _expressions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)


def _check_function(name: str, expression: dict[str, Any]) -> None:
    called = expression["function_name"].lower()
    rows = _connection().execute(
        "SELECT function_type, stability FROM duckdb_functions() WHERE function_name = ?", [called]
    )
    kinds = rows.fetchall()
    scalar = bool(kinds) and all(kind == "scalar" and stability == "CONSISTENT" for kind, stability in kinds)
    if not scalar and called not in _MACROS:
        raise DefinitionError(
            f"calls {called}()" if kinds else f"calls {called}(), which there is not",
            field=name,
            expected="functions of the row alone that always give the same answer",
        )
