"""Floors and ceilings that a candidate must keep always: those of the contract and those of the training job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headway.core.errors import DefinitionError
from headway.training.evaluate import Measure
from headway.training.gates.results import GateResult
from headway.training.judging import Gate


def check_floors(
    measures: Mapping[str, Measure], *, job: Iterable[Gate], contract: Iterable[tuple[str, float]] = ()
) -> list[GateResult]:
    """Hold the point estimates against the floors of the contract (metric, floor) and the bounds of the job.

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
    return results
