"""MLflow's `/invocations`: the rows of a data frame in the forms that its scoring protocol knows.

Source: MLflow, "Deploy MLflow Model as a Local Inference Server": `dataframe_split`, `dataframe_records`, `instances`,
`inputs`. CSV is not taken: its values have no types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headway.core.errors import InvalidValue, TooLarge
from headway.core.times import EVENT_TIME
from headway.serving.http import Response
from headway.serving.protocol import DecisionCall, DecisionsBody, decode, invalid, moment, refuse_duplicates
from headway.serving.schema import MAX_ROWS, DecisionSchema, Row

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Split(msgspec.Struct, forbid_unknown_fields=True):
    """pandas' orientation `split`."""

    columns: list[str]
    data: list[list[Any]]
    index: list[Any] | None = None


class InvocationsBody(msgspec.Struct, forbid_unknown_fields=True):
    """One of four forms."""

    dataframe_split: Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[dict[str, Any]] | dict[str, list[Any]] | None = None
    inputs: list[dict[str, Any]] | dict[str, list[Any]] | None = None
    params: dict[str, Any] | None = None


class InvocationsProtocol:
    """Decodes and encodes for one use case."""

    def __init__(self, schema: DecisionSchema) -> None:
        self._row = schema.row_type()
        self._decoder = msgspec.json.Decoder(InvocationsBody)

    def decode(self, data: bytes) -> DecisionCall:
        """Return the rows; errors name form, row and column."""
        body = decode(self._decoder, data)
        refuse_duplicates(data)
        given = [name for name in _FORMS if getattr(body, name) is not None]
        if len(given) != 1:
            raise InvalidValue("body", f"one of {', '.join(_FORMS)} is needed", hint="and no other of them")
        if body.params:
            raise InvalidValue("params", "the model takes no parameters", hint="leave it out")
        (form,) = given
        rows: list[Row] = []
        replayed = False
        for place, record in _records(form, getattr(body, form)):
            if len(rows) == MAX_ROWS:
                raise TooLarge(f"more than {MAX_ROWS} rows", field=form, hint="split the request")
            row = self._of(record, place)
            if row[-1] is not None:
                replayed = True
                row = (*row[:-1], moment(row[-1], f"{place}.{EVENT_TIME}"))
            rows.append(row)
        if not rows:
            raise InvalidValue(form, "no rows", hint="send at least one")
        return DecisionCall(rows=rows, replayed=replayed, size=len(data))

    @staticmethod
    def encode(answer: DecisionsBody) -> Response:
        """Return the predictions, one record per row."""
        return Response(200, msgspec.json.encode({"predictions": answer.decisions}))

    def _of(self, record: dict[str, Any], place: str) -> Row:
        try:
            return msgspec.structs.astuple(msgspec.convert(record, self._row))
        except msgspec.ValidationError as error:
            refused = invalid(error)
            column = "" if refused.field == "body" else f".{refused.field}"
            raise InvalidValue(f"{place}{column}", refused.message, code=refused.code) from None


def _records(form: str, given: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a row stands and its columns."""
    if isinstance(given, Split):
        if len(set(given.columns)) != len(given.columns):
            raise InvalidValue(f"{form}.columns", "a column comes twice")
        for index, values in enumerate(given.data):
            place = f"{form}.data[{index}]"
            if len(values) != len(given.columns):
                raise InvalidValue(place, f"{len(values)} values for {len(given.columns)} columns")
            yield place, dict(zip(given.columns, values, strict=True))
    elif isinstance(given, list):
        for index, record in enumerate(given):
            yield f"{form}[{index}]", record
    else:
        sizes = {name: len(values) for name, values in given.items()}
        if len(set(sizes.values())) > 1:
            raise InvalidValue(form, f"columns of unequal length: {sizes}")
        for index in range(next(iter(sizes.values()), 0)):
            yield f"{form}[{index}]", {name: _scalar(values[index]) for name, values in given.items()}


def _scalar(value: Any) -> Any:
    """Return the value of a [n, 1] tensor's row."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
