"""Verdicts that others reach, as gates: served and recomputed features agree, no batch of a source is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headway.training.gates.results import GateResult, unmeasured

CONSISTENCY = "consistency"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What somebody else found."""

    gate: str
    """consistency | quality."""
    passed: bool | None
    """None: nothing was compared."""
    detail: str = ""
    """In words: `1,024 reads, 0 mismatches`."""


def check_verdicts(verdicts: Sequence[Verdict], required: Sequence[str], *, first: bool = False) -> list[GateResult]:
    """Return one result per verdict; one that the job requires and nobody brought, or that found nothing, fails.

    Before the `first` version serves, nothing can have been served inconsistently: that verdict is then not judged.
    """
    results = []
    for verdict in verdicts:
        unserved = first and verdict.gate == CONSISTENCY
        if verdict.passed is None and verdict.gate in required and not unserved:
            results.append(unmeasured(verdict.gate, "verdict", "platform", verdict.detail or "nothing was compared"))
            continue
        results.append(
            GateResult(
                gate=verdict.gate, metric="verdict", source="platform", passed=verdict.passed is not False,
                value=None if verdict.passed is None else float(verdict.passed), detail=verdict.detail,
            )
        )  # fmt: skip
    brought = {verdict.gate for verdict in verdicts}
    results += [
        unmeasured(name, "verdict", "platform", "nobody brought a verdict") for name in required if name not in brought
    ]
    return results
