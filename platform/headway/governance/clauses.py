"""Lists every leaf of a contract with the mechanism that enforces it, and says plainly where nothing does yet.

A promise that nothing enforces is worse than none, because people rely on it. The table below is the only place that
claims enforcement; a test looks into each named module for the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headway.governance.contract import Contract, Duration, leaves

CONTRACT = "headway.governance.contract_schema"
SIGNOFF = "headway.governance.signoff"
ADMISSION = "headway.serving.admission"
TERMS = "headway.serving.terms"
"""Turns clauses into what the replicas obey."""


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One leaf of a contract."""

    path: str
    """Field path: `accuracy[0].floor`."""
    value: Any
    """As builtin type."""
    mechanism: str | None
    """Module that enforces it, or is to; None: the mechanism does not exist yet."""
    enforced: bool
    """False: a promise on paper, so far."""


_MECHANISMS: tuple[tuple[str, str | None, bool], ...] = (
    (r"apiVersion|kind|name", CONTRACT, True),
    (r"owner|description", SIGNOFF, True),
    (r"signoff", SIGNOFF, True),
    (r"decision\.feature_service", "headway.serving.assembly", True),
    (r"decision\.entity", "headway.serving.terms", True),
    (r"decision\.(request\..+|output\.score)", None, False),
    (r"decision\.output\.label\..+", TERMS, True),
    (r"decision\.positive_rate", None, False),
    (r"tier", None, False),
    (r"latency\.(p95_ms|p99_ms)", ADMISSION, True),
    (r"throughput\.(ceiling_rps|beyond)", ADMISSION, True),
    (r"availability\.target", "headway.cluster.serve_config", True),
    (r"availability\.window", None, False),
    (r"accuracy\[\d+\]\.(metric|floor)", "headway.training.gates.judge", True),
    (r"accuracy\[\d+\]\.(window|on_breach)", None, False),
    (r"freshness\[\d+\]\.(view|max_lag|on_stale)", TERMS, True),
    (r"fallback", TERMS, True),
    (r"decision_log", TERMS, True),
    (r"drift\.(false_alarms_per_month|smallest_effect)", "headway.monitoring.budget", True),
    (r"canary\..+", None, False),
    (r"retrain\.(cooldown|min_new_labels|max_per_week)", "headway.monitoring.loop", True),
    (r"limits\.(default_rps|burst)", ADMISSION, True),
    (r"privacy\.purposes", TERMS, True),
    (r"privacy\.retention", None, False),
)
_TABLE = tuple((re.compile(pattern), mechanism, enforced) for pattern, mechanism, enforced in _MECHANISMS)


def clauses(contract: Contract) -> list[Clause]:
    """Return every leaf of the contract, in the order of the file."""
    return list(_clauses(contract))


def _clauses(contract: Contract) -> Iterator[Clause]:
    for path, value in leaves(contract):
        shown = str(value) if isinstance(value, Duration) else list(value) if isinstance(value, tuple) else value
        for pattern, mechanism, enforced in _TABLE:
            if pattern.fullmatch(path):
                kept = enforced and not (path == "fallback" and _has_variant(value))
                yield Clause(path=path, value=shown, mechanism=mechanism, enforced=kept)
                break
        else:
            yield Clause(path=path, value=shown, mechanism=None, enforced=False)


def _has_variant(ladder: tuple[str, ...]) -> bool:
    """Whether the ladder names a cheaper model, a rung that is not built yet."""
    return any(rung.startswith("variant:") for rung in ladder)
