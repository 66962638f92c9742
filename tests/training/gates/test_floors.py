"""Gates: floors and ceilings of contract and job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from headway.core.errors import DefinitionError, GateFailed
from headway.training.definitions import Gate
from headway.training.evaluate import Measure
from headway.training.gates.floors import check_floors
from headway.training.gates.results import GateReport


def measure(value: float) -> Measure:
    return Measure(value=value, low=value, high=value, n=10)


def report_of(
    measures: Mapping[str, Measure], *, job: Sequence[Gate], contract: Sequence[tuple[str, float]] = ()
) -> GateReport:
    return GateReport(results=tuple(check_floors(measures, job=job, contract=contract)))


MEASURES = {"roc_auc": measure(0.8), "brier": measure(0.1)}


def test_a_value_on_its_bound_passes() -> None:
    gates = [Gate(metric="roc_auc", floor=0.8), Gate(metric="brier", ceiling=0.1)]
    report = report_of(MEASURES, job=gates, contract=[("roc_auc", 0.8)])
    assert report.passed
    assert [result.source for result in report.results] == ["contract", "job", "job"]
    report.require("fraud 1")


def test_every_bound_that_fails_is_named() -> None:
    gates = [Gate(metric="brier", floor=0.05, ceiling=0.09), Gate(metric="roc_auc", floor=0.7)]
    report = report_of(MEASURES, job=gates, contract=[("roc_auc", 0.81)])
    assert not report.passed
    assert [result.passed for result in report.results] == [False, True, False, True]
    with pytest.raises(GateFailed) as error:
        report.require("fraud 1")
    assert str(error.value).startswith(
        "fraud 1: roc_auc 0.8000 < floor 0.81 (contract); brier 0.1000 > ceiling 0.09 (job)"
    )


def test_nan_never_passes() -> None:
    report = report_of({"roc_auc": measure(float("nan"))}, job=[Gate(metric="roc_auc", floor=0.0)])
    assert not report.passed


@pytest.mark.parametrize(
    ("gate", "says"),
    [(Gate(metric="card_precision_at_100", floor=0.1), "group"), (Gate(metric="roc_auc"), "floor or ceiling")],
)
def test_a_gate_that_cannot_be_measured_is_an_error(gate: Gate, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        check_floors(MEASURES, job=[gate])
