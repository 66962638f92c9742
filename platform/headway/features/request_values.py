"""What a feature service expects of the columns that come with a request: broken ones are refused, or only marked.

They are the expectations of sources (`headway.features.quality.expectations`), of the two kinds that one row can break.
`severity=REJECT`, the default, refuses the request and names the field; `WARN` decides and marks the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headway.core.errors import DefinitionError
from headway.core.times import EVENT_TIME
from headway.features.quality.expectations import Expectation, Kind


def require_request_values(expectations: Sequence[Expectation], request: Mapping[str, str], *, field: str) -> None:
    """Raise DefinitionError for one that a single request cannot be held against."""
    columns = {name: dtype for name, dtype in request.items() if name != EVENT_TIME}
    for expectation in expectations:
        if expectation.kind not in (Kind.BETWEEN, Kind.ONE_OF):
            raise DefinitionError(
                f"{expectation.name} is of many rows", field=field, expected="between(...) or one_of(...)"
            )
        if expectation.tolerance:
            raise DefinitionError(
                f"{expectation.name} tolerates a share of rows, a request has no share",
                field=field,
                expected="no tolerance; severity=Severity.WARN marks instead of refusing",
            )
        expectation.require_columns(columns, field=field)
        if expectation.kind is Kind.ONE_OF and "bool" in {columns[name] for name in expectation.columns}:
            raise DefinitionError(f"{expectation.name}: a bool has two values", field=field, expected="no expectation")


def describe_request_values(expectations: Sequence[Expectation]) -> list[dict[str, str]]:
    """Return them as builtin types."""
    return [{"expectation": item.name, "severity": item.severity.value} for item in expectations]
