"""What gates found: one result per bound, all of them in one report."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headway.core.errors import GateFailed
from headway.training.evaluate import Measure


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One bound held against one measure."""

    metric: str
    source: str
    """Who set the bound, or what the candidate was held against: contract | job | champion <version>."""
    value: float | None
    """None: it could not be measured, which never passes."""
    passed: bool
    floor: float | None = None
    ceiling: float | None = None
    gate: str = "floor"
    """floor | champion | segment | calibration | latency | consistency | quality | poisoning | fairness."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval that was held against the bound."""
    part: str = ""
    """Segment or group of rows: `amount=below 10`."""
    detail: str = ""
    """What else there is to say: why it could not be measured, or was not judged."""

    def __str__(self) -> str:
        """`average_precision 0.41 < floor 0.55 (contract)`; other gates name themselves and the part first."""
        name = self.metric if self.gate == "floor" else f"{self.gate} {self.metric}"
        name += f" [{self.part}]" if self.part else ""
        more = f": {self.detail}" if self.detail else ""
        if self.value is None:
            return f"{name} {'not judged' if self.passed else 'not measured'} ({self.source}){more}"
        shown = f"{self.value:.4f}"
        if self.low is not None and self.high is not None:
            shown += f" [{self.low:.4f}, {self.high:.4f}]"
        if self.floor is not None:
            shown += f" {'≥' if self.passed else '<'} floor {self.floor:g}"
        elif self.ceiling is not None:
            shown += f" {'≤' if self.passed else '>'} ceiling {self.ceiling:g}"
        else:
            shown += " passed" if self.passed else " failed"
        return f"{name} {shown} ({self.source}){more}"


class PartMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """The measures of one segment; intervals hold 90 % for all parts of the column at once."""

    part: str
    rows: int
    measures: dict[str, Measure]
    """Empty where the part is smaller than its declared minimum."""


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """All gates of a candidate."""

    results: tuple[GateResult, ...]
    use_case: str = ""
    as_of: int = 0
    """Decision time of the training, UTC microseconds."""
    decided_at: int = 0
    """UTC microseconds."""
    contract_sha256: str = ""
    snapshots: dict[str, int] = {}
    """Lake table → snapshot id."""
    champion: str = ""
    """Version that the candidate was held against; empty: none."""
    measures: dict[str, Measure] = {}
    segments: tuple[PartMeasures, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(result.passed for result in self.results)

    def require(self, name: str) -> None:
        """Raise GateFailed naming every bound that does not hold."""
        failed = "; ".join(str(result) for result in self.results if not result.passed)
        if failed:
            raise GateFailed(f"{name}: {failed}", hint="the candidate was recorded but not signed; the champion stays")


def unmeasured(gate: str, metric: str, source: str, why: str, part: str = "") -> GateResult:
    """Return the failed result of a gate that could not be measured."""
    return GateResult(gate=gate, metric=metric, source=source, value=None, passed=False, part=part, detail=why)


def joined(parts: Iterable[Iterable[GateResult]]) -> tuple[GateResult, ...]:
    """Return all results in order."""
    return tuple(result for part in parts for result in part)
