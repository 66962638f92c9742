"""Calibration: the error, its interval, and the test beside it."""

from __future__ import annotations

import numpy as np
import pytest

from headway.training.gates.calibration import calibration_error, check_calibration, spiegelhalter
from tests.training.gates.rows_for_tests import ranked, rows


def test_the_error_of_a_shift_is_the_shift() -> None:
    label = np.tile([0.0, 0.0, 0.0, 1.0], 1_000)
    assert calibration_error(rows(label, np.full(4_000, 0.35))).value == pytest.approx(0.10)


def test_calibrated_scores_pass_and_others_do_not() -> None:
    label, score = ranked(3, 20_000)
    (good,) = check_calibration(rows(label, score), 0.02)
    (bad,) = check_calibration(rows(label, np.sqrt(score)), 0.02)
    assert (good.passed, bad.passed) == (True, False)
    assert "Spiegelhalter" in str(bad)


def test_the_interval_of_calibrated_scores_reaches_down_to_none() -> None:
    lows = [calibration_error(rows(*ranked(seed, 2_000))).low for seed in range(20)]
    assert max(lows) < 0.01  # the error itself, of noise alone, is about 0.02


def test_spiegelhalter_rejects_as_often_as_it_says() -> None:
    rejected = sum(spiegelhalter(*ranked(seed, 500))[1] < 0.1 for seed in range(300))
    assert 15 <= rejected <= 46  # 30 expected, within three standard deviations
    label, score = ranked(1, 5_000)
    assert spiegelhalter(label, score**2)[1] < 1e-6


def test_undeclared_is_no_gate_and_another_task_cannot_pass() -> None:
    label, score = ranked(1)
    assert check_calibration(rows(label, score), None) == []
    (result,) = check_calibration(rows(label, score, task="regression"), 0.5)
    assert (result.passed, result.value) == (False, None)
