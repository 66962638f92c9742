"""The catalogue as one HTML page: no server, no network, nothing to install; it opens from a file.

Every text that somebody wrote is escaped where it is put in, and the page's own policy runs no script and takes no
style but the two that stand here, by their hashes: a description cannot become code (`core.page`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from headway.cluster.catalogue import Catalogue
from headway.cluster.lineage import Line, lineage
from headway.core.page import code, standalone
from headway.core.times import format_duration, format_time
from headway.features.catalogue.card import ColumnCard, ServiceCard, SourceCard, ViewCard
from headway.governance.files import PUBLIC, write_atomic

_STYLE = """
input { font: inherit; width: 100%; box-sizing: border-box; padding: .6rem .8rem; margin: 1rem 0 .25rem; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.2rem; margin: .8rem 0; }
.tag { border: 1px solid currentColor; border-radius: 1rem; padding: 0 .5rem; font-size: .85em; color: #b45309; }
.kind { background: var(--soft); border-radius: .3rem; padding: 0 .4rem; font-size: .85em; }
"""
_SCRIPT = """
const box = document.getElementById("search"), cards = [...document.querySelectorAll("article")];
const count = document.getElementById("count");
const texts = cards.map(card => card.textContent.toLowerCase());
function search() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  cards.forEach((card, i) => {
    card.hidden = !words.every(word => texts[i].includes(word));
    shown += !card.hidden;
  });
  count.textContent = words.length ? `${shown} of ${cards.length} found` : `${cards.length} entries`;
  document.querySelectorAll("section").forEach(section => {
    section.hidden = words.length > 0 && !section.querySelector("article:not([hidden])");
  });
}
box.addEventListener("input", search);
search();
"""


def write_page(catalogue: Catalogue, out: Path) -> Path:
    """Write `index.html` into a folder, which is made if it does not exist; return the file."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    write_atomic(path, page(catalogue).encode(), mode=PUBLIC)
    return path


def page(catalogue: Catalogue) -> str:
    """Return the page."""
    lines = lineage(catalogue)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in catalogue.notes)
    body = f"""<h1>Features</h1>
<p class="made">As of {escape(catalogue.made)}.</p>
{notes}
<input id="search" type="search" placeholder="Search names, owners, tags, descriptions" aria-label="Search" autofocus>
<p id="count" class="made" aria-live="polite"></p>
{_section("Views", (_view(catalogue, view, lines) for view in catalogue.views.values()))}
{_section("Services", (_service(catalogue, service, lines) for service in catalogue.services))}
{_section("Sources", (_source(catalogue, source) for source in catalogue.sources.values()))}"""
    return standalone("Features", body, style=_STYLE, script=_SCRIPT)


def _view(catalogue: Catalogue, view: ViewCard, lines: Sequence[Line]) -> str:
    source = catalogue.sources[view.source]
    services = catalogue.services_of(view.name)
    table = catalogue.tables.get(source.table)
    mark = catalogue.watermarks.get(view.version)
    error = "none" if not view.hop_us else f"a window may begin up to {format_duration(view.hop_us)} too early"
    facts = {
        "Owner": escape(view.owner),
        "Sensitivity": _tags(view.tags),
        "Entity": f"{escape(view.entity)} by {code(', '.join(key.name for key in view.keys))}",
        "Windows" if view.kind == "window" else "Lifetime": escape(view.limits),
        **({"Window error": escape(error)} if view.kind == "window" else {}),
        "Source": _link("source", source.name),
        "Lake": _lake(catalogue, source.table),
        "Complete to": "not known" if mark is None or (table is None and not mark) else escape(mark or "never filled"),
        "Used by": ", ".join(_link("service", name) for name in services) or "no service",
        "Models": _models(line for line in lines if line.view == view.name),
        "Decisions": _decided(catalogue, [case for name in services for case in catalogue.cases_of(name)]),
        "Version": code(view.version),
    }
    return _card("view", view.name, view.kind, view.description, facts, (*view.keys, *view.features))


def _service(catalogue: Catalogue, service: ServiceCard, lines: Sequence[Line]) -> str:
    cases = catalogue.cases_of(service.name)
    facts = {
        "Sensitivity": _tags(service.tags),
        "Use cases": escape(", ".join(cases)) or "none",
        "Joins": ", ".join(_link("view", join) if join in catalogue.views else escape(join) for join in service.joins),
        "Models": _models(line for line in lines if line.service == service.name),
        "Decisions": _decided(catalogue, cases),
        "Definition": code(catalogue.hashes[service.name]),
    }
    return _card("service", service.name, "service", service.description, facts, service.columns)


def _source(catalogue: Catalogue, source: SourceCard) -> str:
    views = [view.name for view in catalogue.views.values() if view.source == source.name]
    reads = [
        f"{one.total:,} by {escape(one.actor)} for {escape(one.purpose)}, last {escape(format_time(one.last))}"
        for one in catalogue.reads
        if one.table == source.table
    ]
    facts = {
        "Owner": escape(source.owner),
        "Sensitivity": _tags(source.tags),
        "Lake": _lake(catalogue, source.table),
        "Purposes": escape(", ".join(source.purposes)) or "none: nobody may read it",
        "Views": ", ".join(_link("view", name) for name in views) or "none",
        "Governed reads": "<br>".join(reads) or "none seen",
    }
    return _card("source", source.name, "source", source.description, facts, source.columns)


def _card(
    kind: str, name: str, word: str, description: str, facts: dict[str, str], columns: Sequence[ColumnCard]
) -> str:
    """Return one entry; the values of `facts` are HTML, everything else is text."""
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{value or '&mdash;'}</dd>" for key, value in facts.items())
    rows = "".join(
        f"<tr><td>{code(column.name)}</td><td>{escape(column.dtype)}</td><td>{_tags(column.tags)}</td>"
        f"<td>{escape(column.meaning)}</td></tr>"
        for column in columns
    )
    return (
        f'<article id="{escape(f"{kind}-{name}")}">'
        f'<h3>{escape(name)} <span class="kind">{escape(word)}</span></h3><p>{escape(description)}</p>'
        f"<dl>{listed}</dl><details><summary>{len(columns)} columns</summary>"
        f'<div class="wide"><table><thead><tr><th>Column</th><th>Type</th><th>Sensitivity</th><th>Meaning</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div></details></article>"
    )


def _section(title: str, cards: Iterable[str]) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(cards)}</section>"


def _lake(catalogue: Catalogue, table: str) -> str:
    found = catalogue.tables.get(table)
    if found is None:
        return f"{code(table)}, not seen"
    at = f", snapshot {found.snapshot_id} of {escape(found.committed)}" if found.snapshot_id is not None else ""
    return f"{code(table)}, {found.rows:,} rows{at}"


def _models(lines: Iterable[Line]) -> str:
    found: dict[str, None] = {}
    for line in lines:
        for model in line.models:
            marks = "".join(f" @{alias}" for alias in model.aliases)
            trained = "" if model.snapshot_id is None else f", {line.table} at {model.snapshot_id}"
            found[escape(f"{model.use_case} {model.version}{marks} ({model.state}{trained})")] = None
    return "<br>".join(found) or "none seen"


def _decided(catalogue: Catalogue, cases: Sequence[str]) -> str:
    found = [
        f"{one.total:,} by {escape(one.use_case)} {escape(one.version)}, {one.last_day:,} in the last day"
        for one in catalogue.decisions
        if one.use_case in cases
    ]
    return "<br>".join(found) or "none seen"


def _tags(tags: Sequence[str]) -> str:
    return " ".join(f'<span class="tag">{escape(tag)}</span>' for tag in tags)


def _link(kind: str, name: str) -> str:
    return f'<a href="#{escape(f"{kind}-{name}")}">{escape(name)}</a>'
