"""What a data scientist writes about training: the labelled spine, the ranges, the recipe and the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headway.core.errors import DefinitionError
from headway.core.times import parse_duration
from headway.features.definitions import EventSource, FeatureService
from headway.training.judging import DAYS, Gate, LabelSource, Protected, Refresh, Segment, check_declared

__all__ = ["Gate", "LabelSource", "OnnxImport", "Protected", "Recipe", "Segment", "TrainingJob", "XGBoostRecipe"]

OBJECTIVES = (
    "binary:logistic", "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:gamma", "reg:tweedie",
    "count:poisson",
)  # fmt: skip
"""What the recipe can fit, and every back end can compute."""
CALIBRATIONS = ("platt", "isotonic")


@dataclass(frozen=True, kw_only=True)
class XGBoostRecipe:
    """Gradient-boosted trees under Ray Train."""

    params: Mapping[str, float | int | str]
    """Passed to `xgboost.train`; what the fields below say is set by the recipe."""
    rounds: int
    """Boosting rounds."""
    checkpoint_every: int = 25
    """Rounds between checkpoints; a restart loses at most these."""
    workers: int = 1
    max_failures: int = 2
    """Worker or node failures survived (Ray Train `FailureConfig`)."""
    objective: str = "binary:logistic"
    """One of OBJECTIVES: binary classification, or a regression."""
    class_weights: Mapping[int, float] | str | None = None
    """Class → weight, or `balanced`: positives weigh as much as negatives in all. Weighted scores are no
    probabilities any more; `calibration` makes them so again."""
    weight: str | None = None
    """Column of the spine with the weight of each row."""
    categorical: tuple[str, ...] = ()
    """Features that hold codes 0, 1, … (`headway.features.categories`), split by sets of categories."""
    validation: str | None = None
    """This much of the end of the training range is not trained on: for early stopping and calibration."""
    early_stopping: int | None = None
    """Rounds without a better loss on the validation rows after which fitting ends; the best round counts."""
    calibration: str | None = None
    """platt | isotonic: scores become probabilities, as the validation rows say."""

    def __post_init__(self) -> None:
        """Refuse an objective that cannot be served, and what needs validation rows without them."""
        if self.objective not in OBJECTIVES:
            raise DefinitionError(
                f"unknown objective {self.objective!r}", field="recipe.objective", expected=" | ".join(OBJECTIVES)
            )
        if self.calibration not in (None, *CALIBRATIONS):
            raise DefinitionError(
                f"unknown calibration {self.calibration!r}", field="recipe.calibration", expected="platt | isotonic"
            )
        for name in ("calibration", "early_stopping"):
            if getattr(self, name) is not None and self.validation is None:
                raise DefinitionError(
                    f"{name} needs rows that are not trained on", field="recipe.validation", expected="such as `2d`"
                )
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise DefinitionError(
                f"{self.class_weights!r}", field="recipe.class_weights", expected="balanced, or class → weight"
            )
        if self.regression:
            for name in ("class_weights", "calibration"):
                if getattr(self, name) is not None:
                    raise DefinitionError(
                        f"{self.objective} has no classes", field=f"recipe.{name}", expected="None for a regression"
                    )

    @property
    def regression(self) -> bool:
        """Whether labels are numbers, not classes."""
        return self.objective != "binary:logistic"


@dataclass(frozen=True, kw_only=True)
class OnnxImport:
    """A model trained elsewhere (scikit-learn, LightGBM) and converted to ONNX; evaluated and gated like any other."""

    file: str
    """Path from the project's folder."""
    sha256: str
    """Of the file: a job names one model, not whatever lies at a path."""
    regression: bool = False
    """Whether the output is a number, not the probability of class 1."""


Recipe = XGBoostRecipe | OnnxImport


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
    """0/1 column of the spine; any number for a regression."""
    label_delay: str
    train: str
    evaluate: str
    gap: str = "0s"
    recipe: Recipe
    gates: tuple[Gate, ...]
    group: str | None = None
    """Key column for per-day card precision@100."""
    seed: int = 7
    leak_bound: float = 0.995
    """A feature that alone ranks the training rows this well (ROC AUC; for a regression |Spearman's correlation|) is a
    leak."""
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
