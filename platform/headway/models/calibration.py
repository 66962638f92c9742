"""Scores that are probabilities: a monotone function of the trees' margin, fitted on rows that were not trained on.

It works on the margin and not on the score, because all back ends add up the same margin to the bit: whatever the
slope, only the rounding of this function itself can differ between them. It travels inside the model files, as an
attribute of XGBoost's JSON and as nodes of the ONNX graph, so that a file and its calibration cannot be mixed up.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import expit

from headway.core.errors import InvalidValue, Tampered
from headway.core.types import Matrix

ATTRIBUTE = "headway.calibration"
"""Name in the `attributes` of `model.json`."""
KNOTS = 64
_BIN_ROWS = 100
_NEWTON_STEPS = 100
_SMALLEST = 1e-12

Float64 = npt.NDArray[np.float64]


class Platt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="platt"):
    """1 / (1 + exp(−(slope × margin + offset)))."""

    slope: float
    offset: float

    def __call__(self, margin: Matrix) -> Matrix:
        """Return probabilities float32 [n], in the order of the operations of the ONNX graph."""
        line = margin * np.float32(self.slope) + np.float32(self.offset)
        with np.errstate(over="ignore"):
            return np.asarray(np.float32(1) / (np.float32(1) + np.exp(-line)), dtype=np.float32)


class Isotonic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="isotonic"):
    """Straight lines between knots, flat outside them."""

    margins: tuple[float, ...]
    """Ascending, float32."""
    probabilities: tuple[float, ...]
    """Never falling, in [0, 1]."""

    def parts(self) -> tuple[Matrix, Matrix, Matrix]:
        """Return (start, width, slope) of the lines, float32 [knots − 1] each."""
        start = np.asarray(self.margins, dtype=np.float32)
        width = np.diff(start)
        slope = np.diff(np.asarray(self.probabilities)) / width.astype(np.float64)
        return start[:-1], width, slope.astype(np.float32)

    def __call__(self, margin: Matrix) -> Matrix:
        """Return probabilities float32 [n]: the first knot's, plus what each line adds up to the margin.

        Each term and each rounding is monotone, hence the sum; the ONNX graph computes the same.
        """
        start, width, slope = self.parts()
        inside = np.clip(margin[:, None] - start, np.float32(0), width)
        risen = (inside * slope).sum(axis=1, dtype=np.float32) + np.float32(self.probabilities[0])
        return np.asarray(np.minimum(risen, np.float32(self.probabilities[-1])), dtype=np.float32)


Calibration = Platt | Isotonic


def fit_calibration(kind: str, margin: Matrix, label: Matrix, weight: Matrix | None = None) -> Calibration:
    """Fit `platt` or `isotonic` on float32 [n] each; InvalidValue for one class, or a margin that ranks wrongly."""
    truth = np.asarray(label, dtype=np.float64)
    if len(truth) == 0 or truth.min() == truth.max():
        raise InvalidValue(
            "recipe.validation", f"{len(truth)} rows of one class", hint="calibration needs both: widen the range"
        )
    weights = np.ones(len(truth)) if weight is None else np.asarray(weight, dtype=np.float64)
    margins = np.asarray(margin, dtype=np.float64)
    return _platt(margins, truth, weights) if kind == "platt" else _isotonic(margins, truth, weights)


def _platt(margin: Float64, label: Float64, weight: Float64) -> Platt:
    """Newton's method on the log loss, with the smoothed targets of Platt (1999), section 2.2."""
    positive, negative = float(weight @ label), float(weight @ (1 - label))
    target = np.where(label == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    at = np.array([1.0, 0.0])
    design = np.stack([margin, np.ones_like(margin)], axis=1)
    loss = np.inf
    step = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        line = design @ at
        now = float(weight @ (np.logaddexp(0, line) - target * line))
        if now > loss:  # too far: half the way back
            step = step / 2
            at = at - step
        else:
            if loss - now < _SMALLEST * max(1.0, abs(now)):
                break
            loss = now
            chance = expit(line)
            curve = design.T @ (design * (weight * chance * (1 - chance))[:, None]) + _SMALLEST * np.eye(2)
            step = np.linalg.solve(curve, design.T @ (weight * (target - chance)))
            at = at + step
    if not at[0] > 0:
        raise InvalidValue(
            "recipe.calibration",
            f"on the validation rows the label falls with the score (slope {at[0]:.3g})",
            hint="the model does not hold on later rows; widen `train` or `validation`",
        )
    return Platt(slope=float(np.float32(at[0])), offset=float(np.float32(at[1])))


def _isotonic(margin: Float64, label: Float64, weight: Float64) -> Isotonic:
    """Pool adjacent violators over at most 64 bins of equal count, a knot at each bin's mean.

    One row at the base rate is added to each bin: a bin without positives is rare, not impossible.
    """
    bins = max(2, min(KNOTS, len(margin) // _BIN_ROWS))
    ends = np.unique(np.quantile(margin, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(ends, margin, side="right")
    total = np.bincount(place, weights=weight, minlength=len(ends) + 1)
    there = total > 0
    sums = np.bincount(place, weights=weight * margin, minlength=len(total))[there]
    mean_margin = (sums / total[there]).astype(np.float32)
    mass = np.asarray(total[there], dtype=np.float64)
    rate = float(np.average(label, weights=weight))
    mean_label = (np.bincount(place, weights=weight * label, minlength=len(total))[there] + rate) / (mass + 1)
    knots, first = np.unique(mean_margin, return_index=True)
    if len(knots) < 2:
        raise InvalidValue("recipe.calibration", "every validation row has the same score", hint="nothing was learnt")
    values = pool(mean_label[first], mass[first])
    return Isotonic(margins=tuple(knots.tolist()), probabilities=tuple(values.tolist()))


def pool(value: Float64, weight: Float64) -> Float64:
    """Return the never falling sequence nearest to `value` in weighted squares: pool adjacent violators."""
    means: list[float] = []
    weights: list[float] = []
    counts: list[int] = []
    for mean, mass in zip(value.tolist(), weight.tolist(), strict=True):
        means.append(mean)
        weights.append(mass)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            last, heavy, many = means.pop(), weights.pop(), counts.pop()
            both = weights[-1] + heavy
            means[-1] = (means[-1] * weights[-1] + last * heavy) / both
            weights[-1] = both
            counts[-1] += many
    return np.repeat(means, counts)


def encode(calibration: Calibration) -> str:
    """Return the JSON form."""
    return msgspec.json.encode(calibration).decode()


def decode(text: str | None) -> Calibration | None:
    """Return what `encode` wrote, None for None; Tampered where it is no monotone function to [0, 1]."""
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text, type=Platt | Isotonic)
    except msgspec.MsgspecError as error:
        raise Tampered(f"the model's calibration cannot be read: {error}") from error
    if isinstance(found, Platt):
        sound = found.slope > 0 and bool(np.isfinite([found.slope, found.offset]).all())
    else:
        margins = np.asarray(found.margins, dtype=np.float32)
        values = np.asarray(found.probabilities)
        sound = (
            2 <= len(margins) <= KNOTS
            and len(margins) == len(values)
            and bool(np.isfinite(margins).all() and np.isfinite(values).all())
            and bool((np.diff(margins) > 0).all() and (np.diff(values) >= 0).all())
            and bool(values[0] >= 0 and values[-1] <= 1)
        )
    if not sound:
        raise Tampered("the model's calibration is no monotone function to [0, 1]")
    return found
