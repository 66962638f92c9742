"""The card of a model version: what it was made from, how good it is and where it ends, computed from what is signed.

A card is derived, never stored as a source: the same signed files always give the same card, so it cannot disagree with
them. What other stages sign beside the model (reports, back ends) is shown as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headway.core.times import format_time
from headway.features.profile import Profile
from headway.governance.clauses import clauses
from headway.governance.contract import LoadedContract
from headway.governance.contract_schema import Contract
from headway.governance.statement import FileEntry, ModelStatement
from headway.models.input_schema import InputSchema
from headway.training.card_features import FeatureLine, Importance, feature_lines
from headway.training.card_limits import known_limits


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A measured number and what it may as well be."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    part: str = ""
    """Segment; empty: all evaluation rows."""
    rows: int | None = None


class GateLine(msgspec.Struct, frozen=True, kw_only=True):
    """One bound and how the version stood to it."""

    gate: str
    measured: Interval
    bound: str
    """`≥ 0.55`, `≤ 0.25`, or empty."""
    bound_value: float | None
    source: str
    passed: bool
    detail: str = ""


class ClauseLine(msgspec.Struct, frozen=True, kw_only=True):
    """One clause of the contract."""

    path: str
    value: Any
    enforced: bool


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What was signed, by which key, until when."""

    key_ids: tuple[str, ...]
    statement_sha256: str
    files: tuple[FileEntry, ...]
    created: str
    expires: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page shows."""

    use_case: str
    version: str
    description: str
    owner: str
    intended: tuple[str, ...]
    not_for: tuple[str, ...]
    limits: tuple[str, ...]
    """Known from the data."""
    data: dict[str, Any]
    metrics: tuple[Interval, ...]
    segments: tuple[Interval, ...]
    gates: tuple[GateLine, ...]
    importance: Importance | None
    features: tuple[FeatureLine, ...]
    """Most important first; the score last."""
    request: tuple[dict[str, Any], ...]
    """Request columns that are no features themselves."""
    model: dict[str, Any]
    """Recipe, back end, hardware."""
    lineage: dict[str, Any]
    clauses: tuple[ClauseLine, ...]
    signature: Signature
    documents: dict[str, Any]
    """Other signed JSON files, as they stand."""
    notes: tuple[str, ...]
    """What could not be shown, and why."""


def make_card(
    statement: ModelStatement,
    *,
    statement_sha256: str,
    key_ids: Sequence[str],
    profile: Profile,
    schema: InputSchema,
    definition: Mapping[str, Any],
    importance: Importance | None = None,
    contract: LoadedContract | None = None,
    meanings: Mapping[str, str] | None = None,
    documents: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Card:
    """Return the card of a verified version; `contract` is shown only where it is the one that was trained for."""
    told = list(notes)
    if contract is not None and contract.sha256 != statement.contract_sha256:
        told.append("The contract changed since the version was trained: its clauses are not shown.")
        contract = None
    metrics = tuple(
        Interval(name=name, value=one.value, low=one.low, high=one.high) for name, one in statement.metrics.items()
    )
    gates = tuple(_gate(msgspec.to_builtins(outcome)) for outcome in statement.gates)
    segments = _segments(documents or {})
    features = feature_lines(profile, schema, importance, meanings or {})
    agreed = None if contract is None else contract.contract
    return Card(
        use_case=statement.name,
        version=statement.version,
        description="" if agreed is None else agreed.description,
        owner="" if agreed is None else agreed.owner,
        intended=() if agreed is None else _intended(agreed),
        not_for=_not_for(statement, agreed, schema),
        limits=known_limits(statement, profile, features, segments, gates),
        data=_data(statement, profile, definition),
        metrics=metrics,
        segments=segments,
        gates=gates,
        importance=importance,
        features=features,
        request=tuple(msgspec.to_builtins(column) for column in schema.request),
        model={
            "recipe": definition.get("recipe", {}), "seed": definition.get("seed"), "backend": statement.backend,
            "tier": statement.hardware.tier, "measured on": statement.hardware.profile,
            "minimum memory": f"{statement.hardware.minimum_memory_bytes / 2**20:,.0f} MiB",
        },
        lineage={
            "contract": statement.contract_sha256, "feature service": statement.feature_service,
            "feature code": statement.kernel_sha256, "reference profile": statement.reference_profile_sha256,
            "git": statement.git_sha or "not known", "requirements.lock": statement.lock_sha256 or "not known",
            "run": statement.run_id, **{f"snapshot of {table}": one for table, one in statement.snapshots.items()},
        },
        clauses=() if agreed is None else tuple(
            ClauseLine(path=one.path, value=one.value, enforced=one.enforced) for one in clauses(agreed)
        ),
        signature=Signature(
            key_ids=tuple(key_ids), statement_sha256=statement_sha256, files=statement.files,
            created=format_time(statement.created), expires=format_time(statement.expires),
        ),
        documents=dict(documents or {}),
        notes=tuple(told),
    )  # fmt: skip


def _gate(found: Mapping[str, Any]) -> GateLine:
    floor, ceiling = found.get("floor"), found.get("ceiling")
    bound = "" if floor is None and ceiling is None else f"≥ {floor:g}" if floor is not None else f"≤ {ceiling:g}"
    return GateLine(
        gate=str(found.get("gate", "floor")),
        measured=Interval(
            name=str(found["metric"]), value=found.get("value"), low=found.get("low"), high=found.get("high"),
            part=str(found.get("part", "")),
        ),
        bound=bound,
        bound_value=floor if floor is not None else ceiling,
        source=str(found.get("source", "")),
        passed=bool(found["passed"]),
        detail=str(found.get("detail", "")),
    )  # fmt: skip


def _segments(documents: Mapping[str, Any]) -> tuple[Interval, ...]:
    """Return the measures by part of every signed document that lists `segments`."""
    found = []
    for document in documents.values():
        listed = document.get("segments", ()) if isinstance(document, Mapping) else ()
        for one in listed:
            part, rows = str(one.get("part", "")), one.get("rows")
            measures = one.get("measures") or {"not measured": {}}
            for name, measure in measures.items():
                value, low, high = (measure.get(key) for key in ("value", "low", "high"))
                found.append(Interval(name=name, value=value, low=low, high=high, part=part, rows=rows))
    return tuple(found)


def _data(statement: ModelStatement, profile: Profile, definition: Mapping[str, Any]) -> dict[str, Any]:
    origin = definition.get("origin", {})
    service = definition.get("service", {})
    sources = sorted({str(view["source"]) for view in service.get("views", []) if "source" in view})
    ranges = {
        f"{name} range": " to ".join(format_time(int(end)) for end in definition[name])
        for name in ("train", "evaluate")
        if isinstance(definition.get(name), list | tuple)
    }
    known = {
        "labelled decisions": definition.get("spine"), "label": definition.get("label"),
        "label delay": definition.get("label_delay"), "group": definition.get("group"),
        "sources of features": ", ".join(sources) or None,
        "known by": format_time(definition["as_of"]) if "as_of" in definition else None,
        **ranges,
        "training rows": origin.get("rows"), "reference rows": profile.rows,
        "snapshots": dict(statement.snapshots),
    }  # fmt: skip
    return {name: value for name, value in known.items() if value is not None}


def _intended(agreed: Contract) -> tuple[str, ...]:
    label = agreed.decision.output.label
    low, high = label.names
    return (
        agreed.description,
        f"One decision per {', '.join(agreed.decision.entity)}: {high!r} from a score of {label.threshold:g} on, else "
        f"{low!r}; about {agreed.decision.positive_rate:.2%} are expected to be {high!r}.",
        f"For the purposes {', '.join(agreed.privacy.purposes)}, on tier {agreed.tier}.",
        f"Signed off by {', '.join(agreed.signoff)}.",
    )


def _not_for(statement: ModelStatement, agreed: Contract | None, schema: InputSchema) -> tuple[str, ...]:
    said = [f"Any decision from {format_time(statement.expires)} on: replicas refuse the version then."]
    if agreed is not None:
        purposes = ", ".join(agreed.privacy.purposes)
        said.insert(0, f"Any other purpose than {purposes}: tokens with another are refused.")
    for column in schema.request:
        if column.categories is not None:
            said.append(f"{column.name} other than the {len(column.categories)} values seen in training: marked.")
        elif column.minimum is not None:
            said.append(f"{column.name} outside {column.minimum:g} to {column.maximum:g}, as seen in training: marked.")
    return tuple(said)
