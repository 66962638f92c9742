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
PROTOCOL = "headway.serving.protocol"


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
    (r"decision\.feature_service", "headway.serving.app", True),
    (r"decision\.(entity|request\..+|output\.score)", PROTOCOL, True),
    (r"decision\.output\.label\..+", "headway.serving.scoring", True),
    (r"decision\.positive_rate", None, False),
    (r"tier", None, False),
    (r"latency\.p99_ms", ADMISSION, True),
    (r"latency\.p95_ms", None, False),
    (r"throughput\.ceiling_rps", ADMISSION, True),
    (r"throughput\.beyond", ADMISSION, True),
    (r"availability\.target", "headway.cluster.serve_config", True),
    (r"availability\.window", None, False),
    (r"accuracy\[\d+\]\.(metric|floor)", "headway.training.gates", True),
    (r"accuracy\[\d+\]\.(window|on_breach)", None, False),
    (r"freshness\[\d+\]\..+", "headway.serving.scoring", True),
    (r"fallback", "headway.serving.fallback", True),
    (r"decision_log", "headway.serving.recorder", True),
    (r"drift\..+", "headway.monitoring.alarms", True),
    (r"canary\..+", None, False),
    (r"retrain\.cooldown", "headway.monitoring.loop", True),
    (r"retrain\.(min_new_labels|max_per_week)", "headway.monitoring.loop", False),
    (r"limits\..+", ADMISSION, True),
    (r"privacy\..+", None, False),
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
                yield Clause(path=path, value=shown, mechanism=mechanism, enforced=enforced)
                break
        else:
            yield Clause(path=path, value=shown, mechanism=None, enforced=False)
