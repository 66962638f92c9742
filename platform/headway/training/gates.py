"""Floors that a candidate must reach before it is signed: those of the contract and those of the training job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from headway.core.errors import DefinitionError, GateFailed
from headway.training.definitions import Gate
from headway.training.evaluate import Measure


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One bound held against one measure."""

    metric: str
    source: str
    """contract | job."""
    value: float
    passed: bool
    floor: float | None = None
    ceiling: float | None = None

    def __str__(self) -> str:
        """`average_precision 0.41 < floor 0.55 (contract)`."""
        sign = "≥" if self.floor is not None else "≤"
        if not self.passed:
            sign = "<" if self.floor is not None else ">"
        bound = f"floor {self.floor:g}" if self.floor is not None else f"ceiling {self.ceiling:g}"
        return f"{self.metric} {self.value:.4f} {sign} {bound} ({self.source})"


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """All gates of a candidate."""

    results: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(result.passed for result in self.results)

    def require(self, name: str) -> None:
        """Raise GateFailed naming every bound that does not hold."""
        failed = "; ".join(str(result) for result in self.results if not result.passed)
        if failed:
            raise GateFailed(f"{name}: {failed}", hint="the candidate was recorded but not signed; the champion stays")


def check_gates(
    measures: Mapping[str, Measure], *, job: Iterable[Gate], contract: Iterable[tuple[str, float]] = ()
) -> GateReport:
    """Hold the measures against the job's gates and the contract's (metric, floor) pairs.

    DefinitionError for a metric that this evaluation does not yield, or a gate without a bound: a gate that cannot be
    measured must not pass silently.
    """
    gates = [("contract", Gate(metric=metric, floor=floor)) for metric, floor in contract]
    gates += [("job", gate) for gate in job]
    results = []
    for source, gate in gates:
        if gate.metric not in measures:
            raise DefinitionError(
                f"no measure {gate.metric!r} in this evaluation",
                field=f"{source}.gates" if source == "job" else "accuracy",
                expected=f"one of {', '.join(sorted(measures))} (card precision needs the job's `group`)",
            )
        if gate.floor is None and gate.ceiling is None:
            raise DefinitionError(f"gate {gate.metric!r} has no bound", field="job.gates", expected="floor or ceiling")
        value = measures[gate.metric].value
        if gate.floor is not None:
            passed = value >= gate.floor
            results.append(GateResult(metric=gate.metric, source=source, value=value, passed=passed, floor=gate.floor))
        if gate.ceiling is not None:
            passed = value <= gate.ceiling
            results.append(
                GateResult(metric=gate.metric, source=source, value=value, passed=passed, ceiling=gate.ceiling)
            )
    return GateReport(results=tuple(results))
