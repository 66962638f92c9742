"""Shows a table at Ray's Prometheus endpoint; Ray puts `ray_` before the names.

Counters are Ray's. A histogram is not: Ray's agent replays each observation in Python and keeps only the middle of its
bucket, so sums are wrong and every request is paid for twice. Its series are gauges that only grow, under the names
Prometheus expects; `rate` and `histogram_quantile` ask for no more.
"""

from __future__ import annotations

from typing import Any

from headway.core.telemetry.instruments import Instrument, Kind, Table


def ray_metric(instrument: Instrument) -> Any:
    """Return Ray's counter or gauge of a declared one; Ray must be connected."""
    from ray.util.metrics import Counter, Gauge

    kind = Counter if instrument.kind is Kind.COUNTER else Gauge
    return kind(instrument.name, instrument.help, instrument.labels)


class RayMetrics:
    """The series of one process; Ray must be connected."""

    def __init__(self) -> None:
        self._instruments: dict[str, Any] = {}
        self._shown: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def show(self, table: Table) -> None:
        """Show every series: counters by what they grew, the rest as it is, since Ray forgets what is not repeated."""
        from ray.util.metrics import Counter, Gauge

        for name, grows, text, labels, value in table.samples():
            instrument = self._instruments.get(name)
            if instrument is None:
                kind = Counter if grows else Gauge
                instrument = self._instruments[name] = kind(name, text, tuple(label for label, _ in labels))
            if not grows:
                instrument.set(value, dict(labels))
                continue
            before = self._shown.get((name, labels), 0.0)
            if value > before:
                instrument.inc(value - before, dict(labels))
                self._shown[name, labels] = value
