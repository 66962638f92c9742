"""The features on a model card: what they matter, and how their values lay in the reference."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from headway.features.profile import BinnedColumn, Profile
from headway.models.input_schema import FeatureSchema, InputSchema

HISTOGRAM_BINS = 24
_POINT = 1e-6
"""Relative width below which a distribution is one value."""
_TAIL = 0.01
"""Share of the reference at either end that a histogram puts into its outermost bars."""


class FeatureLine(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the model, in training and in the reference."""

    name: str
    meaning: str
    dtype: str
    minimum: float | None
    maximum: float | None
    missing: float
    """Share of reference rows without a value."""
    histogram: tuple[float, ...]
    """Shares of the values there are, in bars of equal width from `low` to `high`; empty: none can be drawn."""
    low: float | None
    high: float | None
    gain: float | None
    """Part of all that splits gained in training; None: the model has no trees."""
    impact: float | None
    """Mean absolute contribution over the warm-up rows; None: not computed."""


class Importance(msgspec.Struct, frozen=True, kw_only=True):
    """What features matter, over the signed warm-up rows."""

    method: str
    unit: str
    rows: int
    impact: tuple[float, ...]
    gain: tuple[float, ...] | None = None


def histogram(
    column: BinnedColumn, minimum: float | None, maximum: float | None
) -> tuple[tuple[float, ...], float, float] | None:
    """Return shares in bars of equal width and the two ends, None where nothing can be drawn.

    Bins of a profile are quantiles, hence of unequal width: within a bin, values are taken as spread evenly. What lies
    beyond the outermost 1 % is counted in the outermost bars, so that one far value does not flatten the rest.
    """
    present = sum(column.counts[:-1])
    if not column.edges or not present:
        return None
    edges = np.asarray(column.edges, np.float64)
    low_end = min(column.edges[0], column.edges[0] if minimum is None else minimum)
    high_end = max(column.edges[-1], column.edges[-1] if maximum is None else maximum)
    places = np.concatenate([[low_end], edges, [high_end]])
    cumulative = np.concatenate([[0.0], np.cumsum(column.counts[:-1]) / present])
    first = int(np.searchsorted(cumulative, _TAIL, side="right")) - 1
    if np.isclose(places[first], places[first + 1], rtol=_POINT, atol=_POINT):
        first += 1  # a value that is a bin of its own begins just below itself
    low = float(places[first])
    high = float(places[min(int(np.searchsorted(cumulative, 1 - _TAIL)), len(places) - 1)])
    if high - low <= _POINT * max(1.0, abs(high)):
        return (1.0,), low, high
    at = np.interp(np.linspace(low, high, HISTOGRAM_BINS + 1), places, cumulative)
    at[0], at[-1] = 0.0, 1.0
    return tuple(np.diff(at).tolist()), low, high


def feature_lines(
    profile: Profile, schema: InputSchema, importance: Importance | None, meanings: Mapping[str, str]
) -> tuple[FeatureLine, ...]:
    """Return the features, most important first, then the score."""
    seen = {feature.name: feature for feature in schema.features}
    gains = None if importance is None else importance.gain
    lines = []
    for place, column in enumerate(profile.columns):
        score = place == len(profile.columns) - 1
        known = FeatureSchema(name=column.name) if score else seen[column.name]
        drawn = histogram(column, known.minimum, known.maximum)
        shares, low, high = ((), None, None) if drawn is None else drawn
        lines.append(
            FeatureLine(
                name=column.name,
                meaning="what the version says of the reference rows" if score else meanings.get(column.name, ""),
                dtype=known.dtype,
                minimum=known.minimum,
                maximum=known.maximum,
                missing=column.counts[-1] / max(1, profile.rows),
                histogram=shares,
                low=low,
                high=high,
                gain=None if score or gains is None else gains[place],
                impact=None if score or importance is None else importance.impact[place],
            )
        )
    *features, score_line = lines
    features.sort(key=lambda line: (-(line.impact or 0.0), -(line.gain or 0.0)))
    return (*features, score_line)
