"""The clauses of a contract that a replica enforces, in the units it computes with."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.errors import DefinitionError
from headway.governance.contract_schema import Contract
from headway.serving.admission import AdmissionLimits

REJECT = "reject"
RULES = "rules"
PREVIOUS = "previous"
_SUPPORTED_ON_STALE = ("reject", "default", "null")
_QUEUE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How far one view may be behind, and what a read does beyond."""

    view: str
    max_lag: int
    """Microseconds between the decision time and the view's watermark."""
    on_stale: str
    """reject | default | null. Definitions declare no default value, so default and null both read as missing."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What serving needs of a contract."""

    threshold: float
    names: tuple[str, str]
    """Labels below the threshold, and from it on."""
    freshness: tuple[Freshness, ...]
    ladder: tuple[str, ...]
    """Steps below the champion that exist in this process: previous, rules."""
    admission: AdmissionLimits
    durable: bool
    """The decision log may not lose a row: a full spool refuses work instead."""
    purposes: tuple[str, ...]

    @classmethod
    def of(cls, contract: Contract, *, file: str = "contract.yaml") -> Terms:
        """Return the terms of a parsed contract; DefinitionError for a clause that this version cannot keep."""
        label = contract.decision.output.label
        freshness = []
        for index, clause in enumerate(contract.freshness):
            if clause.on_stale not in _SUPPORTED_ON_STALE:
                raise DefinitionError(
                    f"{clause.on_stale!r} is not served yet",
                    file=file,
                    field=f"freshness[{index}].on_stale",
                    expected=" | ".join(_SUPPORTED_ON_STALE),
                )
            freshness.append(Freshness(view=clause.view, max_lag=clause.max_lag.microseconds, on_stale=clause.on_stale))
        throughput, limits = contract.throughput, contract.limits
        return cls(
            threshold=float(label.threshold),
            names=label.names,
            freshness=tuple(freshness),
            ladder=tuple(step for step in contract.fallback if step in (PREVIOUS, RULES)),
            admission=AdmissionLimits(
                rate=float(limits.default_rps),
                burst=float(limits.burst),
                ceiling=float(throughput.ceiling_rps),
                deadline_s=contract.latency.p99_ms / 1e3,
                max_queued_rows=max(2_000, int(throughput.ceiling_rps * _QUEUE_SECONDS)),
                shed=throughput.beyond == "shed",
            ),
            durable=contract.decision_log == "durable",
            purposes=contract.privacy.purposes,
        )
