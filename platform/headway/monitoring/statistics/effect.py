"""The size of a difference between two samples, and how much of it sampling error cannot explain.

With enough rows every p-value is small; a difference matters when its *lower bound* exceeds what the contract calls an
effect.
"""

from __future__ import annotations

import msgspec
import numpy as np

from headway.core.errors import InvalidValue
from headway.core.types import Int64


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A measured difference between reference and current counts."""

    statistic: str
    """ks | tv."""
    value: float
    """Plug-in estimate, in [0, 1]."""
    lower: float
    """Lower confidence bound of the population's effect at level 1 − alpha, in [0, 1]."""
    p_value: float
    """Of equality, for display; alarms never look at it."""
    reference: int
    """Rows behind the reference."""
    current: int
    """Rows behind the current window."""


def checked(reference: Int64, current: Int64, alpha: float) -> tuple[int, int]:
    """Return both totals; InvalidValue unless the counts have one shape, none is negative, and alpha is in (0, 1)."""
    if reference.ndim != 1 or reference.shape != current.shape:
        raise InvalidValue("counts", f"shapes {reference.shape} and {current.shape} are not two equal rows of bins")
    if reference.size and (int(reference.min()) < 0 or int(current.min()) < 0):
        raise InvalidValue("counts", "a count is negative")
    if not 0.0 < alpha < 1.0:
        raise InvalidValue("alpha", f"{alpha} is not in (0, 1)")
    return int(reference.sum(dtype=np.int64)), int(current.sum(dtype=np.int64))


def nothing_shown(statistic: str, reference: int, current: int) -> Effect:
    """Return the effect of an empty side: nothing is known, so nothing is shown."""
    return Effect(statistic=statistic, value=0.0, lower=0.0, p_value=1.0, reference=reference, current=current)
