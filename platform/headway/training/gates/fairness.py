"""Whether parts of a protected column are treated alike: selected as often, and found as often where it is due.

Each part is held against all other rows. The interval of the difference is Newcombe's (Statistics in Medicine 1998,
method 10), from two Wilson intervals, at a level divided by the number of parts, so that it holds for all of them. The
far end of it must be within the bound: what is too small to tell does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from headway.training.evaluate import TAIL
from headway.training.gates.results import GateResult, unmeasured
from headway.training.gates.rows import Rows
from headway.training.judging import Protected

Flags = npt.NDArray[np.bool_]


def wilson(hits: int, trials: int, tail: float) -> tuple[float, float]:
    """Return the interval of a share with `tail` beyond each end (Wilson, JASA 1927)."""
    z = -float(ndtri(tail))
    share = hits / trials
    middle = share + z * z / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def difference(hits: int, trials: int, others: int, of: int, tail: float) -> tuple[float, float, float]:
    """Return (first share − second, low, high)."""
    first, second = hits / trials, others / of
    (low, high), (below, above) = wilson(hits, trials, tail), wilson(others, of, tail)
    value = first - second
    return (
        value,
        value - math.hypot(first - low, above - second),
        value + math.hypot(high - first, second - below),
    )


def check_fairness(rows: Rows, protected: Iterable[Protected], threshold: float) -> list[GateResult]:
    """Hold the differences of every part against the declared bounds; a row is selected from the threshold on."""
    results = []
    for group in protected:
        bounds = {"selection_rate": group.selection_rate, "true_positive_rate": group.true_positive_rate}
        declared = {name: bound for name, bound in bounds.items() if bound is not None}
        parts = group.parts(rows.columns[group.column])
        if not declared:
            results.append(unmeasured("fairness", "selection_rate", "job", "no bound is declared", part=group.column))
        if rows.task != "binary":
            results += [unmeasured("fairness", name, "job", f"a {rows.task} task", group.column) for name in declared]
            continue
        for name, bound in declared.items():
            counted = np.ones(len(rows.label), dtype=bool) if name == "selection_rate" else rows.label == 1
            results += [
                _judged(rows.score >= threshold, chosen, counted, name, bound, part, len(parts))
                if int(chosen.sum()) >= group.minimum
                else _small(name, part, int(chosen.sum()), group.minimum)
                for part, chosen in parts.items()
            ]
    return results


def _judged(
    selected: Flags, chosen: Flags, counted: Flags, metric: str, bound: float, part: str, parts: int
) -> GateResult:
    here, there = counted & chosen, counted & ~chosen
    if not here.any() or not there.any():
        return unmeasured("fairness", metric, "job", "no rows to compare", part=part)
    value, low, high = difference(
        int(selected[here].sum()), int(here.sum()), int(selected[there].sum()), int(there.sum()), TAIL / parts
    )
    passed = max(abs(low), abs(high)) <= bound
    return GateResult(
        gate="fairness", metric=metric, source="job", value=value, low=low, high=high, ceiling=bound, passed=passed,
        part=part,
    )  # fmt: skip


def _small(metric: str, part: str, rows: int, minimum: int) -> GateResult:
    return GateResult(
        gate="fairness", metric=metric, source="job", value=None, passed=True, part=part,
        detail=f"{rows:,} rows, fewer than {minimum:,}",
    )  # fmt: skip
