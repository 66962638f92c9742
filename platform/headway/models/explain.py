"""Why a version gave a score: what each feature added to it, in the unit in which the model adds up.

Both methods are Shapley values: a base and one contribution per feature that together are the margin, exactly. Trees
have a fast exact algorithm (TreeSHAP: Lundberg, Erion, Lee 2018, arXiv:1802.03888). Any other model is asked what it
says while features go from the reference's median to their value one after the other, in pairs of orders, one the
reverse of the other (Mitchell, Cooper, Frank, Holmes 2022, arXiv:2104.12199): exact where at most two features act
together, else an estimate that still adds up. The two start from different bases and are never compared.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headway.core.clock import SystemClock
from headway.core.errors import InvalidValue, ServiceFailed, Tampered
from headway.core.types import Matrix
from headway.features.profile import BinnedColumn, Profile
from headway.governance.statement import ModelStatement, read_file
from headway.models.artefact import Artefact
from headway.models.backend import Backend
from headway.models.backends import model_file
from headway.models.probe import probe
from headway.models.validation import parse_model_json
from headway.models.warmup import Warmup

_LOG = logging.getLogger(__name__)
Float64 = npt.NDArray[np.float64]
TREE_SHAP, PERMUTATIONS = "tree_shap", "permutation_shapley"
LOG_ODDS, SCORE = "log_odds", "score"
_TREES = "xgboost"
_PAIRS = 8
_CERTAIN = 1e-7
"""Probabilities nearer to 0 or 1 than a float32 can tell are taken as this near."""
_RELATIVE = 1e-5
_LONGEST_S = 2.0
"""Estimated seconds for the reasons of one row, above which a version has none: nobody would wait for them."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Rows taken apart: `base + contributions.sum(axis=1) == margin`, but for float32 rounding in trees."""

    base: Float64
    """[n]: what the model says of nobody in particular."""
    contributions: Float64
    """[n, k]."""
    margin: Float64
    """[n]: the score in the unit of the contributions."""


class Explainer(Protocol):
    """What can take the scores of one version apart."""

    @property
    def method(self) -> str:
        """tree_shap | permutation_shapley."""
        ...

    @property
    def unit(self) -> str:
        """log_odds | score."""
        ...

    def explain(self, matrix: Matrix) -> Explained:
        """Take float32 [n, k] apart; blocking."""
        ...


class TreeShap:
    """Exact contributions of XGBoost's trees, one thread."""

    method = TREE_SHAP

    def __init__(self, model: bytes, *, unit: str) -> None:
        import xgboost

        self.unit = unit
        self._matrix = xgboost.DMatrix
        self._booster = xgboost.Booster(params={"nthread": 1}, model_file=bytearray(model))
        kinds = self._booster.feature_types
        self._categories = {"feature_types": kinds, "enable_categorical": True} if kinds and "c" in kinds else {}

    def explain(self, matrix: Matrix) -> Explained:
        """Take rows apart."""
        data = self._matrix(matrix, missing=math.nan, nthread=1, **self._categories)
        found = self._booster.predict(data, pred_contribs=True, validate_features=False)
        margin = self._booster.predict(data, output_margin=True, validate_features=False)
        if found.ndim != 2:
            raise InvalidValue("model", "has several scores per row", hint="a model of one score can be explained")
        parts = found.astype(np.float64)
        return Explained(base=parts[:, -1], contributions=parts[:, :-1], margin=margin.astype(np.float64).reshape(-1))

    def total_gain(self, features: int) -> Float64:
        """Return what the splits on each feature gained in training, [features]."""
        gains = self._booster.get_score(importance_type="total_gain")
        names = self._booster.feature_names or [f"f{index}" for index in range(features)]
        return np.array([float(np.sum(gains.get(name, 0.0))) for name in names])


class PermutationShapley:
    """Contributions of any back end against a reference row."""

    method = PERMUTATIONS

    def __init__(self, backend: Backend, reference: npt.NDArray[np.float32], *, unit: str) -> None:
        self.unit = unit
        self._backend = backend
        self._reference = reference

    def explain(self, matrix: Matrix) -> Explained:
        """Take rows apart, each by at most 16·(k − 1) + 2 predictions."""
        parts = [self._row(row) for row in matrix]
        contributions = np.array([part for part, _, _ in parts]).reshape(matrix.shape)
        base, margin = (np.array([part[place] for part in parts], np.float64) for place in (1, 2))
        return Explained(base=base, contributions=contributions, margin=margin)

    def _row(self, row: npt.NDArray[np.float32]) -> tuple[Float64, float, float]:
        reference = self._reference
        moved = np.flatnonzero(~((row == reference) | (np.isnan(row) & np.isnan(reference))))
        asked = [reference]
        orders = _orders(len(moved))
        for order in orders:
            step = reference.copy()
            for place in order[:-1]:
                step[moved[place]] = row[moved[place]]
                asked.append(step.copy())
        asked.append(row)
        scores = self._backend.predict(np.ascontiguousarray(asked, dtype=np.float32))
        said = logit(scores) if self.unit == LOG_ODDS else scores.astype(np.float64)
        base, margin = float(said[0]), float(said[-1])
        contributions = np.zeros(len(row))
        inner = said[1:-1].reshape(len(orders), -1)
        for order, between in zip(orders, inner, strict=True):
            walk = np.concatenate([[base], between, [margin]])
            contributions[moved[list(order)]] += np.diff(walk)[: len(order)] / len(orders)
        return contributions, base, margin


def logit(scores: npt.ArrayLike) -> Float64:
    """Return the log-odds of probabilities."""
    there = np.clip(np.asarray(scores, dtype=np.float64), _CERTAIN, 1 - _CERTAIN)
    return np.asarray(np.log(there / (1 - there)))


def to_score(margin: npt.ArrayLike, unit: str) -> Float64:
    """Return the scores that margins stand for."""
    values = np.asarray(margin, dtype=np.float64)
    if unit != LOG_ODDS:
        return values
    return np.asarray(np.exp(-np.logaddexp(0.0, -values)))


def reference_row(profile: Profile) -> npt.NDArray[np.float32]:
    """Return the median of each feature over the reference rows; NaN where most of them lack it."""
    return np.array([_median(column) for column in profile.columns[:-1]], np.float32)


def open_explainer(folder: Path, artefact: Artefact, *, trial: bool = True) -> Explainer:
    """Return the explainer of a loaded version; blocking.

    With `trial` trees that do not serve are loaded in a child process first.

    Tampered where a file is not as signed, ServiceFailed where the back end is too slow to be asked so often.

    The trees explain only what they gave: scores that were calibrated or converted afterwards, and models without
    trees, are explained by permutations over the back end that serves.
    """
    trees = open_trees(folder, artefact.statement, artefact.warmup, trial=trial)
    if trees is not None:
        return trees
    expected = artefact.warmup.expected
    unit = LOG_ODDS if all(0.0 <= score <= 1.0 for score in expected) else SCORE
    asked, rows = most_asked(len(artefact.warmup.features)), artefact.warmup.matrix()
    clock = SystemClock()
    start = clock.monotonic()
    artefact.backend.predict(rows)
    row_s = (clock.monotonic() - start) / len(rows) * asked
    if row_s > _LONGEST_S:
        raise ServiceFailed(f"reasons of one row ask {artefact.backend.name} for {asked:,} scores: about {row_s:.0f} s")
    return PermutationShapley(artefact.backend, reference_row(artefact.profile), unit=unit)


def most_asked(features: int) -> int:
    """Return how many scores permutations ask for at most to explain a row."""
    return 2 * _PAIRS * max(0, features - 1) + 2


def open_trees(folder: Path, statement: ModelStatement, warmup: Warmup, *, trial: bool) -> TreeShap | None:
    """Return the trees of a verified version, None where it has none or they do not give its warm-up scores."""
    path = model_file(_TREES)
    if all(entry.path != path for entry in statement.files):
        return None
    model = read_file(folder, statement, path)
    try:
        learner = parse_model_json(model)["learner"]
        if trial and statement.backend != _TREES:
            probe(folder, _TREES)
    except Tampered as error:  # as signed, but not to be parsed here
        _LOG.warning("the trees of %s %s do not explain it: %s", statement.name, statement.version, error)
        return None
    if int(learner["learner_model_param"].get("num_class", 0)) > 1:
        return None
    trees = TreeShap(model, unit=LOG_ODDS if "logistic" in learner["objective"]["name"] else SCORE)
    found = to_score(trees.explain(warmup.matrix()).margin, trees.unit)
    return trees if np.allclose(found, warmup.expected, rtol=_RELATIVE, atol=warmup.tolerance) else None


def _median(column: BinnedColumn) -> float:
    present = np.cumsum(column.counts[:-1])
    if not column.edges or column.counts[-1] > present[-1]:
        return math.nan
    place = int(np.searchsorted(present, present[-1] / 2))
    return column.edges[min(place, len(column.edges) - 1)]


def _orders(count: int) -> Sequence[tuple[int, ...]]:
    """Return orders of `count` features: all where they are few, else pairs of an order and its reverse."""
    if math.factorial(count) <= 2 * _PAIRS:
        return list(itertools.permutations(range(count)))
    generator = np.random.default_rng(count)  # the same row has the same reasons
    drawn = [tuple(generator.permutation(count).tolist()) for _ in range(_PAIRS)]
    return [order for one in drawn for order in (one, one[::-1])]
