"""Whether the model leaves time for the rest of a request: its back end against a share of the contract's p95."""

from __future__ import annotations

from headway.models.parity import BackendReport
from headway.training.gates.results import GateResult

BATCH = 64
"""Rows of a full micro-batch, which all of its requests wait for."""


def check_latency(report: BackendReport, *, p95_ms: float, share: float) -> list[GateResult]:
    """Hold the chosen back end's median time for a full batch against `share` of the contract's p95."""
    return [
        GateResult(
            gate="latency", metric=f"{report.name}_ms_at_{BATCH}", source="contract",
            value=report.microseconds[BATCH] / 1e3, ceiling=share * p95_ms,
            passed=report.microseconds[BATCH] / 1e3 <= share * p95_ms,
            detail=f"{share:.0%} of p95 {p95_ms:g} ms",
        )
    ]  # fmt: skip
