"""From the counts of one window to findings and at most one alarm, within a given probability of error.

Every feature is compared twice, values among the non-null and the share of nulls. The window's alpha is split evenly
over all comparisons (Bonferroni), which holds whatever their dependence; the bounds need only its logarithm, so that it
costs little.
"""

from __future__ import annotations

import msgspec
import numpy as np

from headway.core.canonical import canonical, sha256
from headway.core.types import Int64
from headway.monitoring.budget import DriftBudget
from headway.monitoring.definitions import Monitor
from headway.monitoring.reference import Bins, Reference
from headway.monitoring.statistics import Effect, kolmogorov_smirnov, total_variation

DRIFT = "drift"
QUALITY = "quality"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of one window."""

    feature: str
    part: str
    """values | nulls."""
    kind: str
    """What it means where it is large: drift (the world changed) or quality (the data are broken)."""
    effect: Effect
    alarmed: bool
    """The lower bound exceeds the contract's smallest effect."""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A window that cannot be explained by sampling error."""

    id: str
    """Content-addressed: the same window raises the same alarm, also after a crash."""
    use_case: str
    version: str
    kind: str
    """quality if any finding is: broken data also shift other features."""
    first_time: int
    """Decision times of the window, UTC microseconds."""
    last_time: int
    rows: int
    findings: tuple[Finding, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """What alarmed, largest effect first."""
        ordered = sorted(self.findings, key=lambda finding: -finding.effect.value)
        return tuple(dict.fromkeys(finding.feature for finding in ordered))


def judge(
    reference: Reference, counts: Int64, *, monitor: Monitor, budget: DriftBudget, alpha: float
) -> tuple[Finding, ...]:
    """Return all findings of a window, largest effect first.

    If every true effect is at most `budget.smallest_effect`, any finding alarms with probability at most `alpha`.
    """
    watched = [bins for bins in reference.bins if bins.name not in monitor.ignore]
    share = alpha / max(1, 2 * len(watched))
    findings: list[Finding] = []
    for bins in watched:
        values = _values(reference.counts, counts, bins, categorical=bins.name in monitor.categorical, alpha=share)
        findings.append(_finding(bins.name, "values", DRIFT, values, budget))
        nulls, more = _nulls(reference.counts, counts, bins, alpha=share)
        kind = QUALITY if more and not monitor.may_be_null(bins.name) else DRIFT
        findings.append(_finding(bins.name, "nulls", kind, nulls, budget))
    return tuple(sorted(findings, key=lambda finding: -finding.effect.value))


def alarm_of(
    findings: tuple[Finding, ...], *, use_case: str, version: str, first_time: int, last_time: int, rows: int
) -> Alarm | None:
    """Return the window's alarm, or None."""
    alarmed = tuple(finding for finding in findings if finding.alarmed)
    if not alarmed:
        return None
    kind = QUALITY if any(finding.kind == QUALITY for finding in alarmed) else DRIFT
    body = [use_case, version, first_time, last_time, rows, msgspec.to_builtins(alarmed)]
    return Alarm(
        id=sha256(canonical(body)),
        use_case=use_case,
        version=version,
        kind=kind,
        first_time=first_time,
        last_time=last_time,
        rows=rows,
        findings=alarmed,
    )


def _finding(feature: str, part: str, kind: str, effect: Effect, budget: DriftBudget) -> Finding:
    return Finding(feature=feature, part=part, kind=kind, effect=effect, alarmed=effect.lower > budget.smallest_effect)


def _values(reference: Int64, counts: Int64, bins: Bins, *, categorical: bool, alpha: float) -> Effect:
    compare = total_variation if categorical else kolmogorov_smirnov
    return compare(reference[bins.start : bins.stop], counts[bins.start : bins.stop], alpha=alpha)


def _nulls(reference: Int64, counts: Int64, bins: Bins, *, alpha: float) -> tuple[Effect, bool]:
    pairs = [
        np.array([side[bins.start : bins.stop].sum(), side[bins.null]], dtype=np.int64) for side in (reference, counts)
    ]
    before, after = (pair[1] / max(1, pair.sum()) for pair in pairs)
    return total_variation(pairs[0], pairs[1], alpha=alpha), bool(after > before)
