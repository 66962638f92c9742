"""The card says what is signed, draws it truly, and lets nobody's text become code."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.canonical import canonical
from headway.core.clock import SystemClock
from headway.core.errors import Tampered
from headway.features.profile import BinnedColumn, build_profile
from headway.governance.audit_event import MemoryAudit
from headway.governance.registry import Registry
from headway.governance.statement import sign_version
from headway.models.explain import TREE_SHAP
from headway.training.card import Card, Interval
from headway.training.card_features import HISTOGRAM_BINS, histogram
from headway.training.card_files import RUN_FOLDER, card_json, cards_folder, keep_card, read_card, write_card
from headway.training.card_page import card_page, interval_bar, sparkline
from headway.training.origin import describe_job
from tests.models.conftest import NAMES, Made, make_version
from tests.training import world

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
PART = {"part": "amount=below 10", "rows": 40, "measures": {"roc_auc": {"value": 0.8, "low": 0.6, "high": 0.9}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a version as training signs it: definition, gates with parts, another signed document."""
    home = tmp_path_factory.mktemp("home")
    version = make_version(home, home / "models" / "fraud-1")
    folder = version.folder
    (folder / "statement.dsse.json").unlink()
    (folder / "definition.json").write_bytes(canonical(describe_job(world.job, world.AS_OF) | {"origin": {"rows": 99}}))
    (folder / "gates.dsse.json").write_bytes(
        version.signer.sign("application/x", canonical({"use_case": "fraud", "segments": [PART]})).to_json()
    )
    (folder / "backends.json").write_bytes(canonical({"onnx": {"1": 8.5, "note": HOSTILE}}))
    gate = {"metric": "roc_auc", "value": 0.9, "floor": 0.6, "passed": True, "source": "contract"}
    fields = version.fields | {
        "gates": (gate, {"metric": "brier", "value": 0.1, "ceiling": 0.25, "passed": True, "source": "job"}),
        "metrics": {"roc_auc": {"value": 0.9, "low": 0.88, "high": 0.92}, "brier": {"value": 0.1}},
        "contract_sha256": world.contract().sha256,
    }
    sign_version(folder, fields, version.signer)
    return replace(version, fields=fields)


@pytest.fixture(scope="module")
def card(made: Made) -> Card:
    return read(made)


def read(made: Made, **more: Any) -> Card:
    given: dict[str, Any] = {"contract": world.contract(), "trial": False} | more
    return read_card(made.folder, made.trust, name="fraud", version="1", clock=SystemClock(), **given)


class Parsed(HTMLParser):
    """Elements, whether all are closed, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data


def test_a_card_says_what_was_signed(made: Made, card: Card) -> None:
    assert (card.use_case, card.version, card.owner) == ("fraud", "1", "shop@example.com")
    assert card.metrics[1] == Interval(name="roc_auc", value=0.9, low=0.88, high=0.92)
    assert [(line.measured.name, line.bound, line.source, line.passed) for line in card.gates] == [
        ("roc_auc", "≥ 0.6", "contract", True),
        ("brier", "≤ 0.25", "job", True),
    ]
    assert card.segments == (Interval(name="roc_auc", value=0.8, low=0.6, high=0.9, part="amount=below 10", rows=40),)
    assert card.data["label delay"] == "7d"
    assert card.data["training rows"] == 99
    assert card.data["reference rows"] == len(made.matrix)
    assert card.data["snapshots"] == {"events.t": 1}
    assert card.data["sources of features"] == "visits"
    assert card.signature.key_ids == (made.signer.key_id,)
    assert {entry.path for entry in card.signature.files} >= {"model.json", "gates.dsse.json"}
    assert card.documents["backends.json"]["onnx"]["1"] == 8.5
    assert card.documents["gates.dsse.json"]["use_case"] == "fraud"
    assert card.lineage["contract"] == world.contract().sha256
    assert {clause.path for clause in card.clauses} >= {"latency.p99_ms", "canary.alpha"}
    assert any("returns" in said for said in card.intended)
    assert card.notes == ()


def test_features_are_told_by_what_they_matter(card: Card) -> None:
    assert card.importance is not None
    assert (card.importance.method, card.importance.rows) == (TREE_SHAP, 63)
    *features, score = card.features
    assert score.name == "score"
    impacts = [line.impact or 0.0 for line in features]
    assert impacts == sorted(impacts, reverse=True)
    assert features[-1].name == "night"  # the label does not depend on it
    assert sum(line.gain or 0.0 for line in features) == pytest.approx(1)
    assert all(line.missing == pytest.approx(0.1, abs=0.03) for line in features)


def test_limits_come_from_the_data(made: Made, card: Card) -> None:
    assert "Segments with few rows, of which little is known: amount=below 10 (40)." in card.limits
    assert any("requirements.lock" in limit for limit in card.limits)
    assert not any("rows only" in limit for limit in card.limits)


def test_another_contract_is_not_shown(made: Made) -> None:
    other = read(made, contract=world.contract(world.CONTRACT.replace("floor: 0.6", "floor: 0.7")))
    assert (other.clauses, other.intended, len(other.notes)) == ((), (), 1)
    assert "contract changed" in other.notes[0]


def test_other_feature_code_tells_nothing_in_words(made: Made) -> None:
    other = read(made, service=world.shop_v1)  # the version was signed for another kernel
    assert "feature code changed" in other.notes[0]
    assert {line.meaning for line in other.features[:-1]} == {""}


def test_the_same_version_has_the_same_card(made: Made, card: Card) -> None:
    assert card_json(read(made)) == card_json(card)
    assert msgspec.json.decode(card_json(card), type=Card).metrics == card.metrics


def test_a_version_that_was_changed_has_no_card(made: Made, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "fraud-1"
    shutil.copytree(made.folder, folder)
    (folder / "definition.json").write_bytes(b"{}")
    with pytest.raises(Tampered, match=r"definition\.json differs"):
        read(replace(made, folder=folder))


def test_the_page_stands_alone_and_is_accessible(card: Card) -> None:
    text = card_page(card)
    parsed = Parsed(text)
    names = [tag for tag, _ in parsed.elements]
    assert names.count("h1") == names.count("main") == 1
    assert not {"script", "link", "img", "iframe", "form"} & set(names)
    for tag, attributes in parsed.elements:
        assert not {"style", "src", "href"} & set(attributes), f"{tag} loads or is styled past the policy"
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] == "col"
    assert names.count("caption") == names.count("table")
    [policy] = [a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy)
    assert "script-src" not in str(policy)
    assert "@media print" in text
    assert "color-scheme: light dark" in text
    for said in ("roc_auc", "0.9 [0.88, 0.92]", "≥ 0.6", "amount=below 10", card.signature.statement_sha256):
        assert said in parsed.text


def test_no_text_of_a_signed_document_becomes_markup(card: Card) -> None:
    hostile = msgspec.structs.replace(
        card, use_case=HOSTILE, description=HOSTILE, owner=HOSTILE, notes=(HOSTILE,), intended=(HOSTILE,),
        not_for=(HOSTILE,), limits=(HOSTILE,), data={HOSTILE: HOSTILE}, documents={HOSTILE: {HOSTILE: [HOSTILE]}},
        metrics=(Interval(name=HOSTILE, value=0.5, part=HOSTILE),), lineage={HOSTILE: HOSTILE},
        features=tuple(msgspec.structs.replace(line, name=HOSTILE, meaning=HOSTILE) for line in card.features),
        gates=tuple(msgspec.structs.replace(line, gate=HOSTILE, detail=HOSTILE) for line in card.gates),
        clauses=tuple(msgspec.structs.replace(line, path=HOSTILE, value=HOSTILE) for line in card.clauses),
    )  # fmt: skip
    parsed = Parsed(card_page(hostile))
    assert not {"script", "img"} & {tag for tag, _ in parsed.elements}
    assert HOSTILE in parsed.text
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)


columns = st.lists(
    st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 1.0])), min_size=1, max_size=400
)  # fmt: skip


@settings(deadline=None)
@given(values=columns, missing=st.integers(0, 5))
def test_a_histogram_holds_every_value_there_is(values: list[float], missing: int) -> None:
    column = np.array([*values, *[np.nan] * missing], np.float32)
    profile = build_profile(column[:, None], ["x"], np.zeros(len(column), np.float32))
    drawn = histogram(profile.columns[0], float(min(values)), float(max(values)))
    if drawn is None:
        assert profile.columns[0].edges == []
        return
    shares, low, high = drawn
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= -1e-12
    assert len(shares) in (1, HISTOGRAM_BINS)
    assert low <= high


def test_a_histogram_shows_the_shape() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(0, 1, 50_000).astype(np.float32)
    column = build_profile(values[:, None], ["x"], values).columns[0]
    drawn = histogram(column, float(values.min()), float(values.max()))
    assert drawn is not None
    shares, low, high = drawn
    expected, _ = np.histogram(np.clip(values, low, high), bins=HISTOGRAM_BINS, range=(low, high))
    assert np.allclose(shares, expected / len(values), atol=0.006)


@given(value=st.floats(0, 1), low=st.floats(0, 1), high=st.floats(0, 1), bound=st.one_of(st.none(), st.floats(-1, 2)))
def test_a_picture_lies_within_its_frame(value: float, low: float, high: float, bound: float | None) -> None:
    drawn = interval_bar(Interval(name="m", value=value, low=min(low, high), high=max(low, high)), 0.0, 1.0, bound)
    places = [float(found) for found in re.findall(r'(?:x1|x2|cx)="([-\d.]+)"', drawn)]
    assert places
    assert all(0 <= place <= 176 for place in places)


def test_nothing_is_drawn_of_nothing(card: Card) -> None:
    assert interval_bar(Interval(name="m", value=None), 0, 1) == ""
    assert histogram(BinnedColumn(name="x", edges=[], counts=[0, 9]), None, None) is None
    assert sparkline(msgspec.structs.replace(card.features[0], histogram=())) == ""


# the registry's own store warns about SQLAlchemy from inside
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
def test_a_card_is_kept_in_the_home_and_in_the_run(made: Made, card: Card, tmp_path: Path) -> None:
    import shutil

    clock, audit = SystemClock(), MemoryAudit()
    registry = Registry(f"sqlite:///{tmp_path}/registry.db", audit, clock, artifacts=tmp_path / "artefacts")
    who = world.principal(clock)
    folder = tmp_path / "fraud"
    shutil.copytree(made.folder, folder)
    run_id, version = registry.reserve("fraud", who)
    registered = registry.finish("fraud", version, folder, metrics={}, params={}, tags={}, principal=who)
    files = keep_card(msgspec.structs.replace(card, version=version), tmp_path, registry, who)
    assert files.html == cards_folder(tmp_path, "fraud") / f"{version}.html"
    assert json.loads(files.json.read_bytes())["use_case"] == "fraud"
    kept = {path.name: path for path in registered.path.parent.joinpath(RUN_FOLDER).iterdir()}
    assert kept["card.html"].read_bytes() == files.html.read_bytes()
    assert read(replace(made, folder=registered.path)).version == "1"
    assert [(e.action, e.outcome) for e in audit.events][-2:] == [
        ("registry.attach.card", "intended"), ("registry.attach.card", "done"),
    ]  # fmt: skip
    assert run_id in str(registered.path)


def test_a_page_and_its_json_are_written_together(card: Card, tmp_path: Path) -> None:
    files = write_card(card, tmp_path / "deep" / "er")
    assert {path.name for path in files.html.parent.iterdir()} == {"1.html", "1.json"}
    assert NAMES[0] in files.html.read_text()
