"""The model card as one HTML page: figures as small pictures with their numbers beside them, to read or print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from headway.core.page import code, standalone
from headway.training.card import Card, GateLine, Interval
from headway.training.card_features import FeatureLine

_STYLE = """
:root { --good: #15803d; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --accent: #7aa2ff; --good: #4ade80; --bad: #f87171; } }
td { font-variant-numeric: tabular-nums; }
caption { text-align: left; opacity: .75; padding: .2rem 0; } ul { margin: .4rem 0; padding-left: 1.2rem; }
.pass { color: var(--good); } .miss { color: var(--bad); font-weight: 600; }
svg { display: block; width: 11rem; height: 1.4rem; color: var(--accent); }
svg .axis { stroke: var(--line); } svg .span { stroke: currentColor; stroke-width: 4; opacity: .45; }
svg .point, svg .bar { fill: currentColor; } svg .bound { stroke: var(--bad); stroke-width: 2; }
.hash { overflow-wrap: anywhere; }
@media print {
  body { max-width: none; padding: 0; } details > * { display: block; } section { break-inside: auto; }
  tr, dl { break-inside: avoid; } h2 { break-after: avoid; }
}
"""
_WIDTH, _HEIGHT = 176, 22
_DEEPEST = 6


def card_page(card: Card) -> str:
    """Return the page."""
    title = f"{card.use_case} {card.version}"
    described = f"<p>{escape(card.description)}</p>" if card.description else ""
    owner = f" Owner: {escape(card.owner)}." if card.owner else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in card.notes)
    parts = [
        f"<main><h1>Model card: {escape(title)}</h1>",
        f'<p class="made">Signed {escape(card.signature.created)}, valid until {escape(card.signature.expires)}.'
        f"{owner} Computed from the signed files alone.</p>{described}{notes}",
        _section("Intended use", _list(card.intended or ("The contract is not at hand.",))),
        _section("Not for", _list(card.not_for)),
        _section("Known limits", _list(card.limits or ("None is known from the data.",))),
        _section("Data", _facts(card.data)),
        _section("Metrics", _metrics(card.metrics, "On the evaluation rows; the bar is the interval that was signed.")),
        _section("Segments", _metrics(card.segments, "By part of the evaluation rows.")) if card.segments else "",
        _section("Gates", _gates(card.gates)),
        _section("Features", _importance(card) + _features(card.features)),
        _section("Request columns", _records(card.request)) if card.request else "",
        _section("Model", _facts(card.model)),
        _section("Lineage", _facts(card.lineage)),
        _section("Contract", _clauses(card)) if card.clauses else "",
        _section("Signature", _signature(card)),
        *(_section(name, _tree(value)) for name, value in card.documents.items()),
        "</main>",
    ]
    return standalone(f"Model card: {title}", "\n".join(part for part in parts if part), style=_STYLE)


def interval_bar(one: Interval, low: float, high: float, bound: float | None = None) -> str:
    """Return a picture of an interval on the scale from `low` to `high`, its bound as a line; empty without a value."""
    if one.value is None or not high > low:
        return ""

    def place(value: float) -> float:
        return 4 + (_WIDTH - 8) * (min(max(value, low), high) - low) / (high - low)

    middle = _HEIGHT / 2
    shapes = [f'<line class="axis" x1="4" y1="{middle}" x2="{_WIDTH - 4}" y2="{middle}"/>']
    if one.low is not None and one.high is not None:
        ends = f'x1="{place(one.low):.1f}" x2="{place(one.high):.1f}"'
        shapes.append(f'<line class="span" {ends} y1="{middle}" y2="{middle}"/>')
    if bound is not None:
        x = f"{place(bound):.1f}"
        shapes.append(f'<line class="bound" x1="{x}" y1="2" x2="{x}" y2="{_HEIGHT - 2}"/>')
    shapes.append(f'<circle class="point" cx="{place(one.value):.1f}" cy="{middle}" r="3.5"/>')
    said = f"{one.name} {_number(one.value)}{_ends(one)} on a scale from {_number(low)} to {_number(high)}"
    return _svg(said + ("" if bound is None else f", bound {_number(bound)}"), shapes)


def sparkline(line: FeatureLine) -> str:
    """Return the histogram of a feature's reference values; empty where none can be drawn."""
    if not line.histogram:
        return ""
    top, width = max(line.histogram), _WIDTH / len(line.histogram)
    bars = [
        f'<rect class="bar" x="{place * width:.1f}" y="{_HEIGHT * (1 - share / top):.1f}" width="{width * 0.85:.1f}" '
        f'height="{_HEIGHT * share / top:.1f}"/>'
        for place, share in enumerate(line.histogram)
        if share > 0
    ]
    return _svg(f"Distribution of {line.name} from {_number(line.low)} to {_number(line.high)}", bars)


def _metrics(measures: Sequence[Interval], caption: str) -> str:
    parts = any(one.part for one in measures)
    rows = []
    for one in measures:
        low, high = _scale([other for other in measures if other.name == one.name])
        first = [escape(one.part), _number(one.rows)] if parts else []
        rows.append(
            [*first, code(one.name), _number(one.value), escape(_ends(one)), interval_bar(one, low, high)]
        )  # fmt: skip
    heads = [*(["Part", "Rows"] if parts else []), "Metric", "Value", "Interval", "Picture"]
    return _table(heads, rows, caption)


def _gates(gates: Sequence[GateLine]) -> str:
    rows = []
    for line in gates:
        one = line.measured
        bounds = [] if line.bound_value is None else [line.bound_value]
        low, high = _scale([one], bounds)
        verdict = '<span class="pass">passed</span>' if line.passed else '<span class="miss">failed</span>'
        rows.append(
            [
                escape(line.gate), code(one.name), escape(one.part), _number(one.value) + escape(_ends(one)),
                escape(line.bound), interval_bar(one, low, high, line.bound_value), escape(line.source), verdict,
                escape(line.detail),
            ]
        )  # fmt: skip
    heads = ["Gate", "Metric", "Part", "Measured", "Bound", "Picture", "Set by", "Verdict", "Note"]
    return _table(heads, rows, "Each bound as it was held against the candidate before it was signed.")


def _importance(card: Card) -> str:
    found = card.importance
    if found is None:
        return '<p class="note">What features matter was not computed.</p>'
    return (
        f"<p>Impact is the mean size of a feature's contribution over {found.rows:,} signed warm-up rows, in "
        f"{escape(found.unit.replace('_', '-'))}, by {escape(found.method.replace('_', ' '))}. Gain is the part of all "
        "that the splits gained in training. Neither says what would happen if somebody changed a feature.</p>"
    )


def _features(features: Sequence[FeatureLine]) -> str:
    top = max((line.impact or 0.0 for line in features), default=0.0)
    rows = [
        [
            code(line.name), escape(line.meaning),
            "" if line.impact is None else interval_bar(Interval(name="impact", value=line.impact), 0, top or 1.0),
            _number(line.impact), "" if line.gain is None else f"{line.gain:.1%}", sparkline(line),
            f"{_number(line.minimum)} to {_number(line.maximum)}" if line.minimum is not None else "",
            f"{line.missing:.1%}",
        ]
        for line in features
    ]  # fmt: skip
    heads = ["Feature", "Meaning", "Impact", "", "Gain", "Reference values", "Range in training", "Missing"]
    return _table(heads, rows, "Most important first, the score last; what drift is measured against.")


def _clauses(card: Card) -> str:
    rows = [
        [code(line.path), escape(str(line.value)), "enforced" if line.enforced else "a promise on paper, so far"]
        for line in card.clauses
    ]
    return _table(["Clause", "Value", "State"], rows, "The contract that the version was trained for.")


def _signature(card: Card) -> str:
    signed = card.signature
    files = [[code(one.path), f"{one.size:,}", f'<span class="hash">{code(one.sha256)}</span>'] for one in signed.files]
    facts = {"keys": ", ".join(signed.key_ids), "statement": signed.statement_sha256}
    return _facts(facts) + _table(["File", "Bytes", "SHA-256"], files, "Exactly these files were signed.")


def _tree(value: Any, depth: int = 0) -> str:
    """Return a signed document as nested lists, whatever it holds."""
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return _list_of((f"{escape(str(name))}: {_tree(item, depth + 1)}" for name, item in value.items()))
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return _list_of(_tree(item, depth + 1) for item in value)
    return escape(_number(value) if isinstance(value, float) else str(value))


def _records(records: Sequence[Mapping[str, Any]]) -> str:
    heads = list(dict.fromkeys(name for record in records for name in record))
    rows = [[_tree(record.get(name, "")) for name in heads] for record in records]
    return _table(heads, rows, "They come with the request; transformations make features of them.")


def _facts(facts: Mapping[str, Any]) -> str:
    items = "".join(
        f'<dt>{escape(str(name))}</dt><dd class="hash">{_tree(value)}</dd>' for name, value in facts.items()
    )
    return f"<dl>{items}</dl>"


def _list(texts: Iterable[str]) -> str:
    return _list_of(escape(text) for text in texts)


def _list_of(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table; the cells are HTML, the rest is text."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _svg(said: str, shapes: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}">'
        f"<title>{escape(said)}</title>{''.join(shapes)}</svg>"
    )


def _scale(measures: Sequence[Interval], bounds: Sequence[float] = ()) -> tuple[float, float]:
    """Return 0 to 1 where all lies within, else what holds all of it."""
    values = [*bounds]
    for one in measures:
        values += [value for value in (one.value, one.low, one.high) if value is not None]
    return min([0.0, *values]), max([1.0, *values])


def _ends(one: Interval) -> str:
    return "" if one.low is None or one.high is None else f" [{_number(one.low)}, {_number(one.high)}]"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
