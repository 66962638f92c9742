"""The candidate against the champion, on the same rows: who replaces it must be better, not only good.

All bounds must hold at once, each at the 5 % level: an intersection-union test (Berger, Technometrics 1982), whose
chance of letting a worse candidate pass is 5 % without any correction. Differences are positive where the candidate is
better, for losses too; their intervals come from pairs: DeLong for areas under the ROC curve of independent rows, else
a bootstrap that draws the same rows, or blocks of rows, for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headway.core.errors import InvalidValue
from headway.training.delong import area_difference
from headway.training.evaluate import CARDS, TAIL, Measure, interval
from headway.training.gates.results import GateResult, unmeasured
from headway.training.gates.rows import Rows
from headway.training.judging import Gate, Refresh, Segment
from headway.training.measuring import LOSSES, NAMES, prepare, resamples
from headway.training.metrics import card_precision

RESAMPLES = 200
_DEFINED = 0.5
"""Share of draws that must have a value."""


def differences(rows: Rows, other: npt.NDArray[Any], names: Sequence[str]) -> Mapping[str, Measure]:
    """Return metric → how much better the candidate is than the scores `other`; metrics without a value are left out.

    Raises InvalidValue for rows of one class.
    """
    mine, theirs = prepare(rows.task, rows.label, rows.score, names), prepare(rows.task, rows.label, other, names)
    sign = {name: -1.0 if name in LOSSES else 1.0 for name in names}

    def gain(weight: npt.NDArray[np.float64] | None) -> dict[str, float]:
        ours, others = mine(weight), theirs(weight)
        return {name: sign[name] * (ours[name] - others[name]) for name in ours}

    values = gain(None)
    draws = [gain(weight) for weight in resamples(len(rows.label), rows.blocks, RESAMPLES, rows.seed)] if values else []
    found = {}
    for name, value in values.items():
        drawn = np.array([draw[name] for draw in draws])
        if np.isfinite(drawn).mean() >= _DEFINED:
            found[name] = interval(value, drawn, len(rows.label))
    if "roc_auc" in found and rows.blocks is None:
        value, low, high = area_difference(rows.label, rows.score, other, tail=TAIL)
        found["roc_auc"] = Measure(value=value, low=low, high=high, n=len(rows.label))
    if CARDS in names and rows.group is not None:
        days = _cards(rows, rows.score) - _cards(rows, other)
        means = np.random.default_rng(rows.seed).choice(days, size=(RESAMPLES, len(days))).mean(axis=1)
        found[CARDS] = interval(float(days.mean()), means, len(days))
    return found


def check_champion(
    rows: Rows, champion: npt.NDArray[Any], *, version: str, gates: Sequence[Gate], rule: Refresh
) -> list[GateResult]:
    """Hold every declared metric against the champion's.

    Args:
        rows: The evaluation rows with the candidate's scores.
        champion: The champion's scores of the same rows.
        version: The champion's.
        gates: Declared metrics; exactly one is primary.
        rule: superior: better point estimates of all, and of the primary confidently. not_inferior: the lower bound of
            every difference is above minus its margin.
    """
    source = f"champion {version}"
    found = differences(rows, champion, [gate.metric for gate in gates])
    results = []
    for gate in gates:
        gain = found.get(gate.metric)
        if gain is None:
            results.append(unmeasured("champion", gate.metric, source, "too few rows of both classes"))
            continue
        proved = gate.primary and rule == "superior"
        bound = 0.0 if proved else -gate.margin
        holds = gain.low > bound or (gain.low == bound == gain.value and not proved)
        if rule == "superior" and not gate.primary:
            holds = holds and gain.value >= 0
        results.append(
            GateResult(
                gate="champion", metric=gate.metric, source=source, value=gain.value, low=gain.low, high=gain.high,
                floor=bound, passed=holds, detail=_asked(gate, rule),
            )
        )  # fmt: skip
    return results


def check_segments(
    rows: Rows, champion: npt.NDArray[Any], segments: Iterable[Segment], *, version: str, primary: str
) -> list[GateResult]:
    """Hold the primary metric of every part against the champion's; card precision falls back to the task's first."""
    metric = primary if primary in NAMES[rows.task] else NAMES[rows.task][0]
    source = f"champion {version}"
    results: list[GateResult] = []
    for segment in segments:
        before, judged = len(results), False
        for name, chosen in segment.parts(rows.columns[segment.column]).items():
            gain, why = _gain(rows.part(chosen), champion[chosen], metric, segment.minimum)
            judged = judged or gain is not None
            if gain is None:
                skipped = GateResult(
                    gate="segment", metric=metric, source=source, value=None, passed=True, part=name, detail=why
                )
                results.append(skipped)
                continue
            results.append(
                GateResult(
                    gate="segment", metric=metric, source=source, value=gain.value, low=gain.low, high=gain.high,
                    floor=-segment.margin, passed=gain.low > -segment.margin, part=name,
                )
            )  # fmt: skip
        if not judged:
            del results[before:]
            why = f"no part has {segment.minimum} rows of both classes"
            results.append(unmeasured("segment", metric, source, why, part=segment.column))
    return results


def _gain(rows: Rows, champion: npt.NDArray[Any], metric: str, minimum: int) -> tuple[Measure | None, str]:
    if len(rows.label) < minimum:
        return None, f"{len(rows.label):,} rows, fewer than {minimum:,}"
    try:
        gain = differences(rows, champion, [metric]).get(metric)
    except InvalidValue as error:
        return None, str(error)
    return gain, "too few rows of both classes"


def _cards(rows: Rows, score: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if rows.group is None:
        raise InvalidValue("group", "is needed for card precision", hint="declare the job's `group`")
    return card_precision(rows.label, score, rows.group, rows.event_time)


def _asked(gate: Gate, rule: Refresh) -> str:
    if rule == "not_inferior":
        return "a refresh must not be worse"
    return "must be confidently better" if gate.primary else "must be better, and confidently not worse"
