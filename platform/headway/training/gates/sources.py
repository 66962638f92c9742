"""Whether the labels of one source say something else than those of all others: what the poisoning gate stands on.

Every row gets a probability from a model that saw no row of its source, so poison cannot teach the model to agree with
it. What is left of the label is summed per source with weights that each look for one attack. The null is that sources
differ only as rows, clusters of rows and sources here naturally do: a binomial variance is scaled by what sums over
clusters show (overdispersion: McCullagh and Nelder, 1989, 4.5) and by the spread of the sources' own z (an empirical
null: Efron, JASA 2004), and Holm (Scand. J. Statist. 1979) keeps the chance of naming anybody in a clean set at
`ALPHA`. The worst is taken out and the rest are judged anew by models without it, since it has moved what the others
are held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from headway.core.errors import InvalidValue
from headway.core.types import Matrix

Float64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

ALPHA = 0.01
"""Chance that anybody is named where all are clean."""
CHECKS = ("labels", "disagreement", "boundary", "duplicates")
MIN_SOURCES = 3
"""Fewer have nothing that they could be held against."""
MIN_ROWS = 200
"""Of a source that is judged alone."""
MAX_NAMED = 5
SMALL = "(small sources)"
FOLDS = 4
FIT_ROWS = 100_000
"""Rows that a fold's model is fitted to, at most."""
_ROUNDS = 40
_STRATA = 20
_PARAMS = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.2, "min_child_weight": 5, "max_bin": 64,
           "tree_method": "hist", "verbosity": 0}  # fmt: skip


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A source whose labels differ from what all others say about such rows."""

    source: str
    check: str
    """labels: too many of one class. disagreement: labels against the features, either way. boundary: as labels, among
    the rows that are hard to tell. duplicates: copies of rows among those."""
    rows: int
    excess: float
    """Rows above (or below) what the others let expect, weighted by the check."""
    p_value: float
    """After Holm's correction."""
    influence: float | None = None
    """By how much the mean log loss of all other sources' rows falls where the models never saw this one."""


def out_of_source(
    matrix: Matrix, label: Float64, source: Codes, *, seed: int, threads: int = 1
) -> tuple[Float64, Codes]:
    """Return each row's probability by a model that was fitted to other sources only, and which model; both [n].

    Args:
        matrix: float32 [n, k]; NaN is a missing value.
        label: 0/1 [n].
        source: Codes 0 … s − 1 [n].
        seed: Of folds, sample and trees.
        threads: Of XGBoost.
    """
    import xgboost

    generator = np.random.default_rng(seed)
    count = int(source.max()) + 1
    folds = min(FOLDS, count)
    fold = (generator.permutation(count) % folds)[source]
    scores = np.empty(len(label))
    for part in range(folds):
        held = fold == part
        others = np.flatnonzero(~held)
        if len(others) > FIT_ROWS:
            others = np.sort(generator.choice(others, FIT_ROWS, replace=False))
        data = xgboost.QuantileDMatrix(matrix[others], label=label[others], nthread=threads, max_bin=64)
        booster = xgboost.train({**_PARAMS, "seed": seed, "nthread": threads}, data, num_boost_round=_ROUNDS)
        scores[held] = booster.inplace_predict(matrix[held])
    return scores, fold


def copies(matrix: Matrix) -> Float64:
    """Return 1 where an equal row stands before this one, else 0; float64 [n]."""
    keys = np.random.default_rng(0).integers(1, 2**63, (matrix.shape[1],), dtype=np.uint64)
    hashed = np.zeros(len(matrix), dtype=np.uint64)
    for index in range(matrix.shape[1]):
        mixed = (np.ascontiguousarray(matrix[:, index]).view(np.uint32).astype(np.uint64) + np.uint64(1)) * (
            keys[index] | np.uint64(1)
        )
        hashed += mixed ^ (mixed >> np.uint64(31))  # multiply-shift hashing, summed over the columns
    found = np.ones(len(matrix))
    found[np.unique(hashed, return_index=True)[1]] = 0
    return found


def residuals(label: Float64, score: Float64, model: Codes, copied: Float64) -> Mapping[str, tuple[Float64, Float64]]:
    """Return check → (value per row, its variance were rows independent).

    Values have mean 0 in each stratum of each model's scores, since a poisoned source shifts the models that saw it;
    the copies, which no model makes, in each stratum of all.

    With y the label and p the probability: y − p; (y − p)(1 − 2p), which is |y − p| less its expectation 2p(1 − p);
    (y − p) · 4p(1 − p), which weighs a row by how close it is to the boundary; and the copies, weighted likewise.
    """
    spread = score * (1 - score)
    stratum = np.empty(len(score), dtype=np.int64)
    for part in np.unique(model):
        rows = np.flatnonzero(model == part)
        rows = rows[np.argsort(score[rows], kind="stable")]
        mass = np.cumsum(np.maximum(spread[rows], 1e-9))
        stratum[rows] = part * _STRATA + np.minimum((mass / mass[-1] * _STRATA).astype(np.int64), _STRATA - 1)
    rest, share = _centred(label - score, stratum), _centred(copied, stratum % _STRATA)
    near, usual = 4 * spread, spread
    often = copied - share
    return {
        "labels": (rest, usual),
        "disagreement": (rest * (1 - 2 * score), usual * (1 - 2 * score) ** 2),
        "boundary": (rest * near, usual * near**2),
        "duplicates": (share * near, often * (1 - often) * near**2),
    }


def suspects(
    matrix: Matrix,
    label: npt.NDArray[Any],
    source: npt.NDArray[Any],
    cluster: npt.NDArray[Any] | None = None,
    *,
    seed: int,
    threads: int = 1,
) -> list[Suspicion]:
    """Return the sources to be named, the worst first.

    Args:
        matrix: float32 [n, k]; NaN is a missing value.
        label: 0/1 [n].
        source: Name of each row's source [n]; those below MIN_ROWS rows are judged as one.
        cluster: Rows of one cluster (a customer, a terminal) depend on one another [n]; None: rows are independent.
        seed: Of the models.
        threads: Of XGBoost.

    Raises InvalidValue for fewer than three sources that are large enough.
    """
    names, code, sizes = np.unique(source, return_inverse=True, return_counts=True)
    large = np.flatnonzero(sizes >= MIN_ROWS)
    if len(large) < MIN_SOURCES:
        raise InvalidValue(
            "sources",
            f"{len(large)} with {MIN_ROWS} rows or more: nothing to hold one against",
            hint=f"{MIN_SOURCES} are needed; `buckets` groups small ones",
        )
    place = np.full(len(names), len(large))
    place[large] = np.arange(len(large))
    code = place[code]
    titles = [*(str(names[index]) for index in large), SMALL]
    labels = np.asarray(label, dtype=np.float64)
    groups = np.arange(len(labels)) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    copied, left = copies(matrix), np.arange(len(labels))
    found: list[Suspicion] = []
    score: Float64 | None = None
    while len(found) < MAX_NAMED and len(large) - len(found) >= MIN_SOURCES:
        before = score
        sources = np.unique(code[left], return_inverse=True)
        score = np.full(len(labels), np.nan)
        score[left], model = out_of_source(matrix[left], labels[left], sources[1], seed=seed, threads=threads)
        if before is not None:
            harm = _loss(labels[left], before[left]) - _loss(labels[left], score[left])
            found[-1] = msgspec.structs.replace(found[-1], influence=float(harm.mean()))
        named = _worst(labels[left], score[left], model, copied[left], sources[1], groups[left])
        if named is None:
            break
        check, place_of, excess, p_value = named
        worst = int(sources[0][place_of])
        rows = int((code == worst).sum())
        found.append(Suspicion(source=titles[worst], check=check, rows=rows, excess=excess, p_value=p_value))
        left = left[code[left] != worst]
    return found


def _worst(
    label: Float64, score: Float64, model: Codes, copied: Float64, code: Codes, group: Codes
) -> tuple[str, int, float, float] | None:
    """Return (check, code, excess, corrected p-value) of the source that stands out most, if one does."""
    count = int(code.max()) + 1
    together = np.unique(code * (int(group.max()) + 1) + group, return_inverse=True)[1]
    owner = np.zeros(int(together.max()) + 1, dtype=np.int64)
    owner[together] = code
    columns = residuals(label, score, model, copied)
    p_values, totals = np.ones((len(columns), count)), np.zeros((len(columns), count))
    for index, (name, (value, variance)) in enumerate(columns.items()):
        sums = np.bincount(together, value)
        usual = np.bincount(code, variance, count)
        if usual.min() <= 0:
            continue  # nothing to tell sources by: no copies at all
        totals[index] = np.bincount(owner, sums, count)
        z = totals[index] / np.sqrt(usual * (np.square(sums).sum() / usual.sum()))
        p_values[index] = _p_values(z, above=name in ("disagreement", "duplicates"))
    check, place = np.unravel_index(np.argmin(p_values), p_values.shape)
    corrected = min(1.0, float(p_values[check, place]) * p_values.size)  # Holm's first step is Bonferroni's
    return None if corrected > ALPHA else (CHECKS[check], int(place), float(totals[check, place]), corrected)


def _p_values(z: Float64, *, above: bool) -> Float64:
    """Return p-values of Student's t, with as many degrees as the spread of z was learnt from."""
    middle = np.median(z)
    scaled = (z - middle) / max(1.0, 1.4826 * float(np.median(np.abs(z - middle))))
    p_values: Float64 = stdtr(len(z) - 1, -(scaled if above else np.abs(scaled))) * (1 if above else 2)
    return p_values


def _centred(value: Float64, stratum: Codes) -> Float64:
    mean = np.bincount(stratum, value) / np.maximum(np.bincount(stratum), 1)
    centred: Float64 = value - mean[stratum]
    return centred


def _loss(label: Float64, score: Float64) -> Float64:
    kept = np.clip(score, 1e-7, 1 - 1e-7)
    loss: Float64 = -np.log(np.where(label == 1, kept, 1 - kept))
    return loss
