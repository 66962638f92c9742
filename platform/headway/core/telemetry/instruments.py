"""Instruments as declarations, and the table of their values: plain numbers, written once a second and not per request.

What is hot keeps lists and integers of its own; a collector empties them into this table, and a driver shows the table
(`headway.core.telemetry.ray_metrics`). So a request pays for an append, and the page of all metrics is made from the
declarations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Labels = tuple[str, ...]


class Kind(Enum):
    """What a number means, in the words of Prometheus."""

    COUNTER = "counter"
    """Only grows; its name ends in `_total`."""
    GAUGE = "gauge"
    """Is what it is now."""
    HISTOGRAM = "histogram"
    """Values counted in buckets: series `_bucket` (cumulative, by `le`), `_sum` and `_count`."""


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """One metric, as it is declared."""

    name: str
    """`headway_<noun>_<unit>`."""
    kind: Kind
    help: str
    labels: tuple[str, ...]


class Sample(NamedTuple):
    """One series and its value now."""

    name: str
    grows: bool
    """Whether the value is that of a counter."""
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(slots=True)
class _Buckets:
    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    sum: float = 0.0


@dataclass(slots=True)
class Table:
    """The values of one process; one thread at a time writes and reads."""

    _values: dict[tuple[Instrument, Labels], float] = field(default_factory=dict)
    _buckets: dict[tuple[Instrument, Labels], _Buckets] = field(default_factory=dict)

    def add(self, counter: Instrument, amount: float, *labels: str) -> None:
        """Let a counter grow; an amount of 0 makes it known."""
        key = (counter, labels)
        self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, instrument: Instrument, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that is counted elsewhere, to its value."""
        self._values[instrument, labels] = value

    def observe(
        self,
        histogram: Instrument,
        values: Sequence[float] | npt.NDArray[np.float64],
        edges: Sequence[float],
        *labels: str,
    ) -> None:
        """Count values into buckets with these upper bounds, which a series keeps from its first values on."""
        found = self._buckets.get((histogram, labels))
        if found is None:
            found = _Buckets(np.asarray(edges, np.float64), np.zeros(len(edges) + 1, np.int64))
            self._buckets[histogram, labels] = found
        if len(values):
            array = np.asarray(values, np.float64)
            places = np.searchsorted(found.edges, array, side="left")  # a bound belongs to its bucket: le
            found.counts += np.bincount(places, minlength=len(found.counts))
            found.sum += float(array.sum())

    def value(self, instrument: Instrument, *labels: str) -> float:
        """Return a counter or gauge, 0 where nothing was said of it."""
        return self._values.get((instrument, labels), 0.0)

    def labelled(self, instrument: Instrument) -> dict[Labels, float]:
        """Return the values of a counter or gauge by labels."""
        return {labels: value for (its, labels), value in self._values.items() if its is instrument}

    def count(self, histogram: Instrument, *labels: str) -> int:
        """Return how many values a histogram has."""
        found = self._buckets.get((histogram, labels))
        return 0 if found is None else int(found.counts.sum())

    def samples(self) -> Iterator[Sample]:
        """Give every series."""
        for (instrument, labels), value in self._values.items():
            named = tuple(zip(instrument.labels, labels, strict=True))
            yield Sample(instrument.name, instrument.kind is Kind.COUNTER, instrument.help, named, value)
        for (instrument, labels), buckets in self._buckets.items():
            named = tuple(zip(instrument.labels, labels, strict=True))
            name, text = instrument.name, instrument.help
            bounds = [*(f"{edge:g}" for edge in buckets.edges), "+Inf"]
            for bound, count in zip(bounds, np.cumsum(buckets.counts).tolist(), strict=True):
                yield Sample(f"{name}_bucket", False, text, (*named, ("le", bound)), count)
            yield Sample(f"{name}_sum", False, text, named, buckets.sum)
            yield Sample(f"{name}_count", False, text, named, int(buckets.counts.sum()))
