"""Which version is meant, and what a card that cannot be kept does to a training: nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster import model_card
from headway.cluster.compose import Installation
from headway.cluster.model_card import keep_card, named
from headway.core.errors import InvalidValue, NotFound, NotSigned
from headway.core.progress import RecordedProgress
from headway.core.project import Project
from headway.core.routing import VersionRef
from headway.core.types import Principal

WHO = Principal(sub="headway-training", kind="workload", scopes=frozenset(), purpose="tests", expires=2**62)


def installed(folder: Path, *cases: str) -> Installation:
    for case in cases:
        place = folder / "serve_apps" / case
        place.mkdir(parents=True)
        (place / "contract.yaml").write_text("")

    def contract(use_case: str) -> Any:
        raise NotSigned(f"{use_case} is not signed")

    at = SimpleNamespace(project=Project(folder), contract=contract, settings=SimpleNamespace(home=folder))
    return cast(Installation, at)


def test_a_version_is_named_with_its_use_case_in_one_way(tmp_path: Path) -> None:
    at = installed(tmp_path, "churn", "fraud")
    assert named(at, "fraud/3", None) == ("fraud", "3")
    assert named(at, "@champion", "churn") == ("churn", "@champion")
    assert named(at, "churn/3", "churn") == ("churn", "3")
    with pytest.raises(InvalidValue, match="one of churn, fraud"):
        named(at, "3", None)
    with pytest.raises(InvalidValue, match="names 'churn'"):
        named(at, "churn/3", "fraud")
    with pytest.raises(NotFound, match="did you mean 'fraud'"):
        named(at, "frud/3", None)


def test_the_only_use_case_need_not_be_said(tmp_path: Path) -> None:
    assert named(installed(tmp_path, "fraud"), "3", None) == ("fraud", "3")


def test_a_card_that_cannot_be_kept_undoes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise OSError("no space left on device")

    monkeypatch.setattr(model_card, "_read", broken)
    progress = RecordedProgress()
    ref = VersionRef(version="3", path=str(tmp_path), statement_sha256="0" * 64)
    keep_card(installed(tmp_path, "fraud"), "fraud", ref, WHO, progress)
    [stage] = progress.stages
    assert stage.notes == ["not kept: no space left on device; headway models card fraud/3 makes it"]
