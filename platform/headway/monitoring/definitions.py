"""What a data scientist writes about monitoring: how large a window is and what its alarms may start.

Budgets (false alarms per month, smallest effect, cooldown, retrains per week) are the contract's, not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.errors import DefinitionError
from headway.core.times import parse_duration


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """The monitor of one use case."""

    use_case: str
    window_rows: int = 2_000
    """Decisions per window. A window tells an effect of `smallest_effect + ~2.5/√window_rows` from none."""
    categorical: tuple[str, ...] = ()
    """Features whose values are names in disguise: compared by total variation instead of the KS distance."""
    cold: tuple[str, ...] = ()
    """Features, or views (`card_activity`), that are rightly null for new entities: more nulls there are drift;
    elsewhere they are broken data, which no retraining mends."""
    ignore: tuple[str, ...] = ()
    """Features that are not compared."""
    retrain: bool = True
    """Whether a drift alarm may start a retraining."""
    interval: str = "1s"
    """How often the actor looks for new counts."""

    def __post_init__(self) -> None:
        """Refuse windows in which nothing could ever be shown."""
        if self.window_rows < 100:
            raise DefinitionError(
                f"{self.window_rows} rows show nothing", field=f"{self.use_case}.window_rows", expected="at least 100"
            )
        parse_duration(self.interval, field="interval")

    @property
    def interval_s(self) -> float:
        """Seconds between looks."""
        return parse_duration(self.interval, field="interval") / 1e6

    def may_be_null(self, feature: str) -> bool:
        """Whether nulls of a feature are values of the world."""
        return feature in self.cold or feature.split("__", maxsplit=1)[0] in self.cold
