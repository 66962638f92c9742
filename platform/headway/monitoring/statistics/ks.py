"""Kolmogorov-Smirnov distance from bin counts, with a finite-sample lower bound.

Binning can only lower the distance (the supremum runs over fewer points), so the bound stays valid for the raw values.
It uses Dvoretzky-Kiefer-Wolfowitz with Massart's constant, which holds for any distribution, at any n, uniformly in x:
therefore also for edges that are quantiles of the reference itself, and for point masses.
"""

from __future__ import annotations

import math

import numpy as np

from headway.core.types import Int64
from headway.monitoring.statistics.effect import Effect, checked, nothing_shown

_TERMS = 100


def dkw_radius(n: int, alpha: float) -> float:
    """Return ε with P(sup|F̂ − F| > ε) ≤ alpha: √(ln(2/alpha) / 2n) (Massart 1990)."""
    return math.sqrt(math.log(2.0 / alpha) / (2.0 * n))


def kolmogorov_smirnov(reference: Int64, current: Int64, *, alpha: float) -> Effect:
    """Compare counts over the same ordered bins [k].

    Half of alpha goes to each sample's error: P(D < lower) ≤ alpha, whatever the true D.
    """
    m, n = checked(reference, current, alpha)
    if m == 0 or n == 0:
        return nothing_shown("ks", m, n)
    distance = float(np.abs(np.cumsum(reference) / m - np.cumsum(current) / n).max())
    lower = distance - dkw_radius(n, alpha / 2) - dkw_radius(m, alpha / 2)
    p_value = kolmogorov_tail(distance * math.sqrt(m / (m + n) * n))
    return Effect(statistic="ks", value=distance, lower=max(0.0, lower), p_value=p_value, reference=m, current=n)


def kolmogorov_tail(scaled: float) -> float:
    """Return P(K > scaled) of Kolmogorov's limit law: 2 Σ (−1)^(k−1) exp(−2 k² scaled²)."""
    if scaled < 0.2:
        return 1.0  # the series alternates slowly there, and the value differs from 1 by less than 1e-12
    k = np.arange(1, _TERMS + 1)
    signs = np.where(k % 2 == 1, 1.0, -1.0)
    tail = 2.0 * float(np.sum(signs * np.exp(-2.0 * (k * scaled) ** 2)))
    return min(1.0, max(0.0, tail))
