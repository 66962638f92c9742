"""The page is parsed as a browser would, and what somebody wrote must come out as text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.cluster.catalogue import Catalogue
from headway.cluster.catalogue_page import page, write_page
from tests.cluster.catalogue_world import HOSTILE, a_catalogue

VOID = {"meta", "input", "br", "link", "img"}


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each article."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.articles: dict[str, str] = {}
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._article: str | None = None
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "article":
            self._article = attributes["id"] or ""
            self.articles[self._article] = ""
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "article":
            self._article = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]][-1] += data
        elif self._article is not None:
            self.articles[self._article] += data


def everywhere(text: str) -> Catalogue:
    """Return a catalogue in which every text that somebody can write is `text`."""
    catalogue = a_catalogue()
    services = tuple(
        type(service)(
            **{
                **{name: getattr(service, name) for name in service.__struct_fields__},
                "description": text,
                "joins": (text,),
                "views": tuple(
                    type(view)(
                        **{
                            **{name: getattr(view, name) for name in view.__struct_fields__},
                            "description": text, "owner": text, "tags": (text,), "entity": text, "limits": text,
                        }
                    )
                    for view in service.views
                ),
                "sources": tuple(
                    type(source)(
                        **{
                            **{name: getattr(source, name) for name in source.__struct_fields__},
                            "description": text, "owner": text, "purposes": (text,), "tags": (text,),
                        }
                    )
                    for source in service.sources
                ),
            }
        )
        for service in catalogue.services
    )  # fmt: skip
    reads = tuple(replace(read, actor=text, purpose=text) for read in catalogue.reads)
    models = tuple(replace(model, aliases=(text,), state=text) for model in catalogue.models)
    return replace(catalogue, services=services, reads=reads, models=models, notes=(text,))


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed(page(a_catalogue()))


def test_each_thing_has_an_entry_that_says_what_is_known(parsed: Parsed) -> None:
    assert list(parsed.articles) == [
        "view-activity", "view-ever", "service-first", "service-second", "source-payments"
    ]  # fmt: skip
    activity = parsed.articles["view-activity"]
    for said in (
        *("a window may begin up to 1us too early", "1,234 rows, snapshot 77", "2026-01-01T12:00:00Z"),
        *("fraud 3 @champion (ready, events.payments at 70)", "5,000 by fraud 3, 40 in the last day"),
        *(
            "firstsecond".replace("ts", "t, s"),
            "pii",
            "financial",
            "activity__amount_mean_10us",
            "mean of amount, 10us",
        ),
    ):
        assert said in activity, said
    assert "never filled" in parsed.articles["view-ever"]
    assert "4 by ana for model_training" in parsed.articles["source-payments"]


def test_links_lead_to_entries_and_nowhere_else(parsed: Parsed) -> None:
    targets = [attributes["href"] for tag, attributes in parsed.elements if tag == "a"]
    assert targets
    assert {target for target in targets if target} <= {f"#{name}" for name in parsed.articles}


def test_nothing_is_loaded_and_only_the_pages_own_script_runs(parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        assert not {"src", "srcset", "style", "action"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert {tag for tag, _ in parsed.elements} & {"link", "img", "iframe", "object", "form", "base"} == set()
    (policy,) = (a["content"] for t, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    for name in ("script", "style"):
        (text,) = parsed.raw[name]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_what_somebody_wrote_is_shown_as_it_was_written(parsed: Parsed) -> None:
    for name in ("view-activity", "service-first", "source-payments"):
        assert HOSTILE in parsed.articles[name]


@given(
    st.one_of(st.text(max_size=30), st.sampled_from([HOSTILE, "<!--", "]]>", "<svg/onload=a>", "javascript:x", "&lt;"]))
)
def test_no_text_changes_what_the_page_is_made_of(text: str) -> None:
    plain, other = Parsed(page(everywhere("x"))), Parsed(page(everywhere(text)))
    assert [tag for tag, _ in plain.elements] == [tag for tag, _ in other.elements]
    assert plain.raw == other.raw


def test_without_a_platform_the_page_says_what_is_missing(tmp_path: Path) -> None:
    bare = replace(
        a_catalogue(), tables={}, watermarks={}, models=(), decisions=(), reads=(), notes=("the registry alone",)
    )
    path = write_page(bare, tmp_path / "new" / "folder")
    found = Parsed(path.read_text())
    assert re.search(r"Complete to\s*not known", found.articles["view-ever"])
    assert "none seen" in found.articles["view-activity"]
    assert "the registry alone" in path.read_text()
