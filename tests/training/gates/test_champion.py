"""Whoever replaces the champion must be better, on the same rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headway.training.evaluate import CARDS
from headway.training.gates.champion import check_champion, check_segments, differences
from headway.training.judging import Gate, Segment
from tests.training.gates.rows_for_tests import noisy, ranked, rows

GATES = (
    Gate(metric="average_precision", floor=0.1, primary=True),
    Gate(metric="roc_auc", floor=0.5),
    Gate(metric="brier", ceiling=0.3),
)
LABEL, SCORE = ranked(1)
WORSE = noisy(SCORE, 2, 1.0)


def passed(score: np.ndarray, champion: np.ndarray, rule: str = "superior") -> dict[str, bool]:
    results = check_champion(rows(LABEL, score), champion, version="3", gates=GATES, rule=rule)  # type: ignore[arg-type]  # a word per case
    assert {result.source for result in results} == {"champion 3"}
    return {result.metric: result.passed for result in results}


def test_a_better_candidate_replaces_the_champion() -> None:
    assert all(passed(SCORE, WORSE).values())


def test_a_worse_candidate_does_not_under_either_rule() -> None:
    assert not any(passed(WORSE, SCORE).values())
    assert not any(passed(WORSE, SCORE, "not_inferior").values())


def test_an_equal_candidate_is_a_refresh_and_no_improvement() -> None:
    assert passed(SCORE, SCORE) == {"average_precision": False, "roc_auc": True, "brier": True}
    assert all(passed(SCORE, SCORE, "not_inferior").values())
    shuffled = noisy(SCORE, 3, 0.02)
    assert not passed(shuffled, SCORE)["average_precision"]
    assert all(passed(shuffled, SCORE, "not_inferior").values())


def test_a_margin_is_held_against_the_confident_bound_and_not_the_estimate() -> None:
    slightly = noisy(SCORE, 4, 0.35)
    gain = differences(rows(LABEL, slightly), SCORE, ["roc_auc"])["roc_auc"]
    assert gain.low < gain.value < 0
    for margin, holds in ((-gain.value * 0.99, False), (-gain.low * 0.99, False), (-gain.low * 1.01, True)):
        gates = (Gate(metric="roc_auc", floor=0.5, margin=margin, primary=True),)
        (result,) = check_champion(rows(LABEL, slightly), SCORE, version="3", gates=gates, rule="not_inferior")
        assert result.passed is holds


def test_the_gain_of_a_loss_is_positive_where_it_falls() -> None:
    found = differences(rows(LABEL, SCORE), WORSE, ["brier", "log_loss", "roc_auc"])
    assert all(0 < gain.low < gain.value < gain.high for gain in found.values())


def test_card_precision_is_compared_by_day() -> None:
    cards = np.random.default_rng(5).integers(0, 3_000, len(LABEL))
    found = differences(rows(LABEL, SCORE, group=cards), np.random.default_rng(6).random(len(LABEL)), [CARDS])
    assert (found[CARDS].n, found[CARDS].low > 0) == (7, True)
    results = check_champion(
        rows(LABEL, SCORE), WORSE, version="3", gates=[Gate(metric=CARDS, floor=0.1, primary=True)], rule="superior"
    )
    assert [(result.passed, result.value) for result in results] == [(False, None)]


@pytest.mark.parametrize("rule", ["superior", "not_inferior"])
def test_equal_models_rarely_pass_as_superior(rule: str) -> None:
    wins = 0
    for seed in range(40):
        label, truth = ranked(seed, 1_500)
        first, second = noisy(truth, seed + 100, 0.7), noisy(truth, seed + 200, 0.7)
        gates = [Gate(metric="roc_auc", floor=0.5, margin=0.05, primary=True)]
        (result,) = check_champion(rows(label, first), second, version="1", gates=gates, rule=rule)  # type: ignore[arg-type]  # a word per case
        wins += result.passed
    assert wins <= 7 if rule == "superior" else wins >= 38  # 2 of 40 expected at the 5 % level


def test_a_segment_that_gets_worse_stops_a_candidate_that_is_better_on_the_whole() -> None:
    night = np.random.default_rng(7).random(len(LABEL)) < 0.15
    mixed = np.where(night, noisy(SCORE, 8, 3.0), SCORE)
    champion = np.where(night, SCORE, noisy(SCORE, 2, 3.0))
    judged = rows(LABEL, mixed, columns={"night": night.astype(np.int64)})
    assert all(r.passed for r in check_champion(judged, champion, version="3", gates=GATES[:1], rule="superior"))
    segments = [Segment(column="night", minimum=100)]
    results = check_segments(judged, champion, segments, version="3", primary="average_precision")
    assert {result.part: result.passed for result in results} == {"night=0": True, "night=1": False}


def test_small_parts_are_listed_and_a_segment_of_none_but_small_ones_fails() -> None:
    part = np.zeros(len(LABEL))
    part[:50] = 1
    judged = rows(LABEL, SCORE, columns={"part": part})
    segment = Segment(column="part", bins=(0.5,), minimum=100)
    results = check_segments(judged, WORSE, [segment], version="3", primary="roc_auc")
    assert [(r.part, r.passed, r.value is None) for r in results] == [
        ("part=below 0.5", True, False),
        ("part=from 0.5", True, True),
    ]
    assert "50 rows, fewer than 100" in str(results[1])
    (result,) = check_segments(judged, WORSE, [replace(segment, minimum=10_000)], version="3", primary="roc_auc")
    assert (result.passed, result.value) == (False, None)
    assert "not measured" in str(result)
