"""Functions over columns, in Python or SQL: the same object runs over training blocks and request batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headway.core.types import Columns
from headway.features.closure import source_of
from headway.features.sql import RowwiseSql

TransformFunction = Callable[[Columns], Columns]


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """A vectorised function over columns."""

    name: str
    inputs: tuple[str, ...]
    """Feature names, request columns, or `event_time` (decision time, int64 microseconds)."""
    outputs: Mapping[str, str]
    """Output column → dtype (float32)."""
    function: TransformFunction = field(compare=False)

    @property
    def source(self) -> str:
        """Text of all that decides the result, hashed into the kernel."""
        return self.function.query if isinstance(self.function, RowwiseSql) else source_of(self.function)


def transformation(
    *, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Callable[[TransformFunction], Transformation]:
    """Declare a transformation: `@transformation(inputs=("event_time",), outputs=("is_night",))`."""

    def declare(function: TransformFunction) -> Transformation:
        return Transformation(
            name=function.__name__, inputs=inputs, outputs=dict.fromkeys(outputs, "float32"), function=function
        )

    return declare


def sql_transformation(name: str, query: str) -> Transformation:
    """Declare a transformation in SQL: `SELECT amount / card_activity__amount_mean_7d AS unusual FROM input`.

    One row comes out for each that goes in: scalar expressions only, each named, over the one table `input`. What is
    missing is NULL inside; `event_time` is microseconds (`make_timestamp(event_time)`). DefinitionError says what else
    the query asks for. DuckDB's dialect; a batch costs about half a millisecond, so a hot path may prefer Python.
    """
    function = RowwiseSql(name, query)
    return Transformation(
        name=name, inputs=function.inputs, outputs=dict.fromkeys(function.outputs, "float32"), function=function
    )
