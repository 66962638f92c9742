"""What is known to be weak about a version, said by its own data and not by whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headway.features.profile import Profile
from headway.governance.statement import ModelStatement

if TYPE_CHECKING:
    from headway.training.card import GateLine, Interval
    from headway.training.card_features import FeatureLine

FEW_ROWS = 1_000
"""A reference, or a segment, of fewer rows says little."""
FEW_SEGMENT_ROWS = 200
MANY_MISSING = 0.2
WIDE = 0.2
"""An interval wider than this part of its value is wide."""
_NAMED = 10


def known_limits(
    statement: ModelStatement,
    profile: Profile,
    features: Sequence[FeatureLine],
    segments: Sequence[Interval],
    gates: Sequence[GateLine],
) -> tuple[str, ...]:
    """Return one sentence per weakness."""
    said = []
    if profile.rows < FEW_ROWS:
        said.append(f"Measured on {profile.rows:,} rows only.")
    for name, metric in statement.metrics.items():
        low, high = metric.low, metric.high
        if low is not None and high is not None and high - low > WIDE * abs(metric.value):
            said.append(f"{name} is known roughly: {metric.value:.3g} may be {low:.3g} to {high:.3g}.")
    small = {one.part: one.rows for one in segments if one.rows is not None and one.rows < FEW_SEGMENT_ROWS}
    said += _listed(
        "Segments with few rows, of which little is known", [f"{part} ({rows:,})" for part, rows in small.items()]
    )
    missing = [f"{line.name} ({line.missing:.0%})" for line in features if line.missing >= MANY_MISSING]
    said += _listed("Features that are often missing", missing)
    constant = [line.name for line in features[:-1] if line.minimum is not None and line.minimum == line.maximum]
    said += _listed("Features that never changed in training", constant)
    idle = [line.name for line in features[:-1] if line.impact == 0 and not line.gain]
    said += _listed("Features that the version does not use", idle)
    unsure = [f"{line.gate} {line.measured.name}".strip() for line in gates if line.measured.value is None]
    said += _listed("Gates passed without a measure", unsure)
    if statement.git_sha.endswith("+changed") or not statement.git_sha:
        said.append("Trained with code that no commit holds: it cannot be made again from the repository alone.")
    if not statement.lock_sha256:
        said.append("Trained without a requirements.lock: its packages are not known.")
    return tuple(said)


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{what}: {', '.join(names[:_NAMED])}{more}."]
