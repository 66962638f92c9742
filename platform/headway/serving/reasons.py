"""Reason codes: the few features that moved a decision most, in words, with what is left over, so that all adds up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from headway.core.types import Matrix
from headway.features.catalogue.card import meanings
from headway.features.definitions import FeatureService
from headway.features.sensitivity import service_tags
from headway.models.explain import Explained, Explainer, Float64
from headway.serving.protocol import Decision

REASONS = 5
"""Reasons of a decision at most; the rest of the features is one sum."""
PERSONAL = "pii"
"""Tag of features whose values are withheld: a caller may know what it sent, not what is stored of a person."""
NONE = "none"
RAISES, LOWERS = "raises", "lowers"


class Reason(msgspec.Struct, frozen=True, gc=False):
    """One feature's part in a decision."""

    feature: str
    name: str
    """The same in words."""
    value: float | None
    """As the model saw it; null: missing, or withheld."""
    withheld: bool
    """Whether there is a value that is not told: the feature is tagged `pii` and did not come with the request."""
    contribution: float
    """What it added to the margin."""
    share: float
    """Its part of what all features moved, up or down, 0 to 1."""
    direction: str
    """raises | lowers the score."""


class Explanation(msgspec.Struct, frozen=True, gc=False):
    """How the reasons were found: `base` + contributions of `reasons` + `others` = `margin`."""

    method: str
    """tree_shap | permutation_shapley | none."""
    unit: str = ""
    """log_odds | score: of base, contributions, others and margin."""
    base: float | None = None
    """What the model says of nobody in particular."""
    others: float | None = None
    """What the features that are not listed added together."""
    margin: float | None = None
    """The score in that unit."""
    why: str = ""
    """Why there are no reasons, where the method is none."""


class ExplainedDecision(Decision):
    """A decision with its reasons, greatest first."""

    reasons: list[Reason]
    explanation: Explanation


class ExplainedBody(msgspec.Struct):
    """Answer of `/v1/decisions?explain=true`."""

    id: str
    model_version: str
    decisions: list[ExplainedDecision]


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The features of a service in words, and whose values are not told."""

    features: tuple[str, ...]
    names: Mapping[str, str]
    withheld: frozenset[str]

    @classmethod
    def of(cls, service: FeatureService) -> Wording:
        """Return the wording of a feature service."""
        tags = service_tags(service)
        views = {feature: view.name for view in service.views for feature in view.features}
        words = meanings(service)
        names = {}
        for feature in service.features:
            plain = feature.replace("_", " ")
            if feature in views:
                names[feature] = f"{views[feature].replace('_', ' ')}: {words[feature]}"
            else:
                names[feature] = plain if feature in service.request else f"{plain} ({words[feature]})"
        withheld = {name for name in service.features if PERSONAL in tags[name] and name not in service.request}
        return cls(features=service.features, names=names, withheld=frozenset(withheld))


def explained(
    decisions: Sequence[Decision], rows: Matrix, found: Explained, explainer: Explainer, wording: Wording
) -> list[ExplainedDecision]:
    """Return the decisions with the reasons of their rows."""
    return [
        ExplainedDecision(
            *_fields(decision), *_reasons(row, contributions, float(base), float(margin), explainer, wording)
        )
        for decision, row, contributions, base, margin in zip(
            decisions, rows, found.contributions, found.base, found.margin, strict=True
        )
    ]


def unexplained(decision: Decision, why: str) -> ExplainedDecision:
    """Return a decision that has no reasons, and why."""
    return ExplainedDecision(*_fields(decision), [], Explanation(NONE, why=why))


def reason_lists(decisions: Sequence[Decision]) -> dict[str, list[Any]]:
    """Return what the Open Inference Protocol's parameters hold of explained decisions; nothing of others."""
    told = [decision for decision in decisions if isinstance(decision, ExplainedDecision)]
    if not told:
        return {}
    return {"reasons": [one.reasons for one in told], "explanations": [one.explanation for one in told]}


def _fields(decision: Decision) -> tuple[str, float, str, str, list[str]]:
    return decision.decision_id, decision.score, decision.label, decision.arm, decision.degraded


def _reasons(
    row: Matrix, contributions: Float64, base: float, margin: float, explainer: Explainer, wording: Wording
) -> tuple[list[Reason], Explanation]:
    sizes = np.abs(contributions)
    total = float(sizes.sum())
    reasons = []
    for place in np.argsort(-sizes, kind="stable")[:REASONS].tolist():
        part = float(contributions[place])
        if part == 0.0:
            break
        name, value = wording.features[place], float(row[place])
        missing, hidden = math.isnan(value), name in wording.withheld
        reasons.append(
            Reason(
                feature=name,
                name=wording.names[name],
                value=None if missing or hidden else value,
                withheld=hidden and not missing,
                contribution=part,
                share=abs(part) / total,
                direction=RAISES if part > 0 else LOWERS,
            )
        )
    others = margin - base - sum(reason.contribution for reason in reasons)
    return reasons, Explanation(explainer.method, explainer.unit, base, others, margin)
