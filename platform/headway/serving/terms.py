"""The clauses of a contract that a replica enforces, in the units it computes with."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.errors import DefinitionError, names_near
from headway.features.definitions import FeatureService
from headway.governance.contract_schema import Contract
from headway.serving.admission import AdmissionLimits

REJECT = "reject"
RULES = "rules"
PREVIOUS = "previous"
RECOMPUTE = "recompute"
_QUEUE_SECONDS = 2.0
_WAIT_FACTOR = 20.0
_LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How far one view may be behind, and what a read does beyond."""

    view: str
    max_lag: int
    """Microseconds between the decision time and the view's watermark."""
    on_stale: str
    """reject | default | null | recompute. Definitions declare no default value, so default and null both read as
    missing; recompute reads the lake, and as missing where that takes longer than the latency clause allows."""


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

    @property
    def patience_s(self) -> float:
        """Seconds after which nobody waits for an answer any more."""
        return min(_LONGEST_WAIT_S, self.admission.deadline_s * _WAIT_FACTOR)

    @classmethod
    def of(cls, contract: Contract) -> Terms:
        """Return the terms of a parsed contract."""
        label = contract.decision.output.label
        freshness = [
            Freshness(view=clause.view, max_lag=clause.max_lag.microseconds, on_stale=clause.on_stale)
            for clause in contract.freshness
        ]
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
                target_s=contract.latency.p95_ms / 1e3,
                max_queued_rows=max(2_000, int(throughput.ceiling_rps * _QUEUE_SECONDS)),
                shed=throughput.beyond == "shed",
            ),
            durable=contract.decision_log == "durable",
            purposes=contract.privacy.purposes,
        )


def require_agreement(contract: Contract, service: FeatureService, *, file: str = "contract.yaml") -> None:
    """Raise DefinitionError where a contract names other keys than its feature service, or views that it does not read.

    Freshness is of what is stored: a clause names the view, and holds for its aliases too.
    """
    if tuple(contract.decision.entity) != service.keys:
        raise DefinitionError(
            f"entity is {list(contract.decision.entity)}, {service.name} has {list(service.keys)}",
            file=file,
            field="decision.entity",
            expected=", ".join(service.keys),
        )
    views = [view.name for view in service.stored]
    for index, clause in enumerate(contract.freshness):
        if clause.view not in views:
            raise DefinitionError(
                f"{clause.view!r} is no view that {service.name} stores{names_near(clause.view, views)}",
                file=file,
                field=f"freshness[{index}].view",
            )
