"""Whether a probability means what it says: the expected calibration error, with an interval, under a ceiling.

Naeini, Cooper, Hauskrecht (AAAI 2015), over bins of equal numbers of rows, which rare events need. Spiegelhalter's z
(Statistics in Medicine 1986) is told beside it; it is no gate of its own, since with enough rows it finds any error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from headway.training.evaluate import Measure, interval
from headway.training.gates.results import GateResult, unmeasured
from headway.training.gates.rows import Rows
from headway.training.measuring import resamples
from headway.training.metrics import Float64, checked

BINS = 15
RESAMPLES = 200
METRIC = "calibration_error"


def calibration_error(rows: Rows) -> Measure:
    """Return the mean over bins of |mean label − mean score|, each weighed by its rows, and its 90 % interval.

    A sum of absolute values is too large by its noise: the interval is the basic bootstrap's, which reflects the draws
    at the value and so takes that out again (Davison and Hinkley, 1997, 5.2).
    """
    label, score = checked(rows.label, rows.score)
    code = np.empty(len(score), dtype=np.int64)
    code[np.argsort(score, kind="stable")] = np.arange(len(score)) * BINS // len(score)
    rest = label - score

    def error(weight: Float64 | None) -> float:
        weighted = rest if weight is None else rest * weight
        return float(np.abs(np.bincount(code, weighted, BINS)).sum()) / len(score)

    value = error(None)
    draws = np.array([error(weight) for weight in resamples(len(score), rows.blocks, RESAMPLES, rows.seed)])
    drawn = interval(value, draws, len(score))
    return Measure(
        value=value, low=max(0.0, 2 * value - drawn.high), high=max(value, 2 * value - drawn.low), n=len(score)
    )


def spiegelhalter(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[float, float]:
    """Return z and the two-sided p-value of the hypothesis that the scores are the labels' probabilities."""
    labels, scores = checked(label, score)
    spread = np.square(1 - 2 * scores) * scores * (1 - scores)
    if spread.sum() == 0:
        return 0.0, 1.0
    z = float(((labels - scores) * (1 - 2 * scores)).sum() / np.sqrt(spread.sum()))
    return z, float(2 * ndtr(-abs(z)))


def check_calibration(rows: Rows, ceiling: float | None) -> list[GateResult]:
    """Hold the upper end of the error's interval against the ceiling, where one is declared."""
    if ceiling is None:
        return []
    if rows.task != "binary":
        return [unmeasured("calibration", METRIC, "job", f"a {rows.task} task has no such probability")]
    found = calibration_error(rows)
    z, p_value = spiegelhalter(rows.label, rows.score)
    return [
        GateResult(
            gate="calibration", metric=METRIC, source="job", value=found.value, low=found.low, high=found.high,
            ceiling=ceiling, passed=found.high <= ceiling, detail=f"Spiegelhalter z {z:.2f}, p {p_value:.2g}",
        )
    ]  # fmt: skip
