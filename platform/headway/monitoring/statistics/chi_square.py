"""Categories: total variation with a finite-sample lower bound, and the χ² test of homogeneity.

The test is 2 × K homogeneity: scaling the reference to "expected" counts, as goodness of fit does, ignores the
reference's own error and turns a nominal 5 % of false alarms into 30 to 70 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from headway.core.types import Int64
from headway.monitoring.statistics.effect import Effect, checked, nothing_shown

_SMALL = 100
"""Below this many rows on a side, Cochran's rule leaves too few bins: the p-value is simulated."""
_DRAWS = 2_000
_SEED = 20_180_808


def variation_radius(n: int, bins: int, alpha: float) -> float:
    """Return ε with P(TV(p̂, p) > ε) ≤ alpha over `bins` categories, whatever p.

    The smaller of Weissman et al. (2003), √(ln((2^K − 2)/alpha) / 2n), and McDiarmid around the expectation,
    ½√((K − 1)/n) + √(ln(1/alpha) / 2n); both are fixed by n, K and alpha, so that choosing is free.
    """
    if bins < 2:
        return 0.0
    subsets = bins * math.log(2.0) + math.log1p(-(2.0 ** (1 - bins)))
    weissman = math.sqrt((subsets - math.log(alpha)) / (2.0 * n))
    mcdiarmid = 0.5 * math.sqrt((bins - 1) / n) + math.sqrt(-math.log(alpha) / (2.0 * n))
    return min(weissman, mcdiarmid)


def total_variation(reference: Int64, current: Int64, *, alpha: float) -> Effect:
    """Compare counts over the same categories [k]; P(TV < lower) ≤ alpha, whatever the true TV."""
    m, n = checked(reference, current, alpha)
    if m == 0 or n == 0:
        return nothing_shown("tv", m, n)
    value = 0.5 * float(np.abs(reference / m - current / n).sum())
    bins = int(reference.size)
    lower = value - variation_radius(n, bins, alpha / 2) - variation_radius(m, bins, alpha / 2)
    return Effect(
        statistic="tv",
        value=value,
        lower=max(0.0, lower),
        p_value=homogeneity(reference, current)[1],
        reference=m,
        current=n,
    )


def homogeneity(reference: Int64, current: Int64) -> tuple[float, float]:
    """Return (χ², p) of the hypothesis that both rows of counts come from one distribution.

    Bins whose expected count is below 5 are pooled (Cochran 1954); where a side has fewer than 100 rows, p is simulated
    with fixed margins instead, from a fixed seed.
    """
    table = np.vstack([reference, current]).astype(np.int64)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or int(table.sum(axis=1).min()) == 0:
        return 0.0, 1.0
    if int(table.sum(axis=1).min()) < _SMALL:
        return _simulated(table)
    table = _pooled(table)
    if table.shape[1] < 2:
        return 0.0, 1.0
    from scipy.special import gammaincc

    statistic = float(_statistic(table[0], table.sum(axis=0)))
    return statistic, float(gammaincc((table.shape[1] - 1) / 2, statistic / 2))


def _statistic(first: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Pearson's χ² of 2 × K tables given their first rows [..., K] and the shared column sums [K]."""
    total = columns.sum()
    row = first.sum(axis=-1, keepdims=True)
    expected = row * columns / total
    gap = (first - expected) ** 2
    result: npt.NDArray[np.float64] = (gap / expected + gap / (columns - expected)).sum(axis=-1)
    return result


def _pooled(table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Merge the rarest columns until every expected count is at least 5."""
    share = table.sum(axis=1).min() / table.sum()
    order = np.argsort(table.sum(axis=0), kind="stable")
    columns = table[:, order]
    merged: list[npt.NDArray[np.int64]] = []
    waiting = np.zeros(2, dtype=np.int64)
    for column in _columns(columns):
        waiting = waiting + column
        if waiting.sum() * share >= 5:
            merged.append(waiting)
            waiting = np.zeros(2, dtype=np.int64)
    if waiting.sum() and merged:
        merged[-1] = merged[-1] + waiting
    return np.array(merged, dtype=np.int64).reshape(-1, 2).T


def _columns(table: npt.NDArray[np.int64]) -> Iterable[npt.NDArray[np.int64]]:
    return (table[:, index] for index in range(table.shape[1]))


def _simulated(table: npt.NDArray[np.int64]) -> tuple[float, float]:
    columns = table.sum(axis=0)
    observed = float(_statistic(table[0], columns))
    rng = np.random.default_rng(_SEED)
    smaller = table[int(table.sum(axis=1).argmin())]
    draws = rng.multivariate_hypergeometric(columns, int(smaller.sum()), size=_DRAWS, method="marginals")
    reached = int((_statistic(draws, columns) >= observed - 1e-9).sum())
    return observed, (1 + reached) / (1 + _DRAWS)
