"""What a data scientist writes about training: the labelled spine, the ranges, the recipe and the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headway.core.times import parse_duration
from headway.features.definitions import EventSource, FeatureService
from headway.training.judging import DAYS, Gate, LabelSource, Protected, Refresh, Segment, check_declared

__all__ = ["Gate", "LabelSource", "Protected", "Segment", "TrainingJob", "XGBoostRecipe"]


@dataclass(frozen=True, kw_only=True)
class XGBoostRecipe:
    """Gradient-boosted trees under Ray Train."""

    params: Mapping[str, float | int | str]
    """Passed to `xgboost.train`; objective and seed are set by the recipe."""
    rounds: int
    """Boosting rounds."""
    checkpoint_every: int = 25
    """Rounds between checkpoints; a restart loses at most these."""
    workers: int = 1
    max_failures: int = 2
    """Worker or node failures survived (Ray Train `FailureConfig`)."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """How one use case's model comes about; ranges are relative to the time of training: a retrain is the same job.

    With T the time of training, `delay` the label delay: evaluation rows have event_time in
    [T − delay − evaluate, T − delay), training rows in the `train` before that minus `gap`. Only labels with
    known_time ≤ T are seen.
    """

    use_case: str
    service: FeatureService
    spine: EventSource
    """Labelled decisions: keys, request columns, label; event_time = decision, known_time = label known."""
    label: str
    """0/1 column of the spine."""
    label_delay: str
    train: str
    evaluate: str
    gap: str = "0s"
    recipe: XGBoostRecipe
    gates: tuple[Gate, ...]
    group: str | None = None
    """Key column for per-day card precision@100."""
    seed: int = 7
    refresh: Refresh = "superior"
    """What the same model on newer data must be, held against the champion: superior | not_inferior on every declared
    metric. Anything else that is trained must be superior."""
    segments: tuple[Segment, ...] = ()
    protected: tuple[Protected, ...] = ()
    sources: LabelSource | None = None
    """Where labels come from: the training rows are searched for sources that were tampered with."""
    blocks: str | None = None
    """`day`, or a column of the spine: rows that share it depend on one another, and are resampled together."""
    calibration_error: float | None = None
    """Largest expected calibration error."""
    latency_share: float = 0.25
    """Share of the contract's p95 that a full batch may take in the model."""
    verdicts: tuple[str, ...] = ()
    """Verdicts that must be brought, and good: consistency, quality."""

    def __post_init__(self) -> None:
        """Refuse what cannot be judged."""
        check_declared(self.gates, self.verdicts)

    @property
    def judged_columns(self) -> tuple[str, ...]:
        """Columns of the spine that judging needs, besides features, keys and label."""
        named = [part.column for part in (*self.segments, *self.protected) if part.column not in self.service.features]
        if self.sources is not None:
            named += [self.sources.column, *([self.sources.ties] if self.sources.ties else [])]
        if self.blocks not in (None, DAYS):
            named.append(str(self.blocks))
        return tuple(dict.fromkeys(named))

    def ranges(self, as_of: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return ((train start, end), (evaluate start, end)), half-open, for training at `as_of`."""
        end = as_of - parse_duration(self.label_delay, field="label_delay")
        middle = end - parse_duration(self.evaluate, field="evaluate")
        train_end = middle - parse_duration(self.gap, field="gap")
        return (train_end - parse_duration(self.train, field="train"), train_end), (middle, end)
