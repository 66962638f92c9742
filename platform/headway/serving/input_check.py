"""Request columns against what the champion was trained on: what it never saw is decided on, and marked.

Training saw a sample of the world. A value beyond it (an amount higher than ever, a new category) is legitimate until a
person says otherwise, so it is answered and marked `input:<column>`; what must not be is declared
(`FeatureService.expectations`) and refused by the decoder before any batch. Per batch and column: two comparisons, or
one subset test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from headway.core.types import Columns
from headway.features.definitions import FeatureService
from headway.features.quality.expectations import Kind, Severity
from headway.models.artefact import Artefact
from headway.models.input_schema import FeatureSchema

Mask = npt.NDArray[np.bool_]
_Test: TypeAlias = Callable[[npt.NDArray[Any]], "Mask | None"]
"""Rows outside, None where there are none."""


class Loaded(Protocol):
    """A version that serves (`headway.serving.host.LoadedModel`)."""

    @property
    def artefact(self) -> Artefact:
        """With its signed input schema."""
        ...


class InputCheck:
    """The check of whichever version is champion; compiled when it changes."""

    def __init__(self, service: FeatureService, ladder: Callable[[], Sequence[tuple[str, Loaded]]]) -> None:
        self._request = service.request
        self._warned: list[tuple[str, _Test]] = [
            (column, _between(item.low, item.high) if item.kind is Kind.BETWEEN else _one_of(item.values))
            for item in service.expectations
            if item.severity is Severity.WARN
            for column in item.columns
        ]
        self._ladder = ladder
        self._model: Loaded | None = None
        self._tests: list[tuple[str, _Test]] = []

    def __call__(self, columns: Columns) -> list[tuple[str, Mask]]:
        """Return (mark, rows) for each column that holds something unseen or warned of."""
        steps = self._ladder()
        if steps and steps[0][1] is not self._model:
            self._model = steps[0][1]
            schema = self._model.artefact.input_schema
            seen = {item.name: item for item in (*schema.features, *schema.request)}
            tests = ((name, _seen(seen[name])) for name in self._request if name in seen)
            self._tests = [*self._warned, *((name, test) for name, test in tests if test is not None)]
        marks: dict[str, Mask] = {}
        for name, test in self._tests if steps else self._warned:
            outside = test(columns[name])
            if outside is not None:
                marks[name] = outside | marks[name] if name in marks else outside
        return [(f"input:{name}", rows) for name, rows in marks.items()]


def _seen(column: FeatureSchema) -> _Test | None:
    """Return the test of what training saw, None where it does not bound anything."""
    if column.categories is not None:
        return _one_of(column.categories)
    if column.minimum is None and column.maximum is None:
        return None
    return _between(column.minimum, column.maximum)


def _between(low: float | None, high: float | None) -> _Test:
    least, most = -np.inf if low is None else low, np.inf if high is None else high

    def test(values: npt.NDArray[Any]) -> Mask | None:
        outside: Mask = (values < least) | (values > most)
        return outside if np.count_nonzero(outside) else None

    return test


def _one_of(known: Sequence[object]) -> _Test:
    allowed = frozenset(known)

    def test(values: npt.NDArray[Any]) -> Mask | None:
        there = values.tolist()
        return None if allowed.issuperset(there) else np.array([value not in allowed for value in there])

    return test
