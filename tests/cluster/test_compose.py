from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.cluster.compose import Installation
from headway.core.control import MemoryControlStore
from headway.core.errors import Tampered
from headway.core.routing import VersionRef, promote
from headway.core.settings import Settings
from headway.features.definitions import View
from tests.cluster.demo.conftest import service


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An installation whose champion lies in a folder that is gone."""
    made = Installation(Settings(home=tmp_path, project=tmp_path), writer="test")
    made.__dict__["control"] = MemoryControlStore()
    monkeypatch.setattr(Installation, "service", lambda self, use_case: service)
    gone = VersionRef(version="1", path=str(tmp_path / "gone"), statement_sha256="0" * 64)
    promote(made.control, "shop", gone, reason="test", by="test", now=1)
    return made


def test_a_version_that_is_gone_does_not_stop_the_others(at: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> Any:
        raise Tampered("its folder is gone")

    monkeypatch.setattr("headway.cluster.compose.verify_version", refuse)
    monkeypatch.setattr(Installation, "trust", property(lambda self: None))
    views: tuple[View, ...] = at.views("shop")
    assert views == service.views
    with pytest.raises(Tampered):
        at.views("shop", strict=True)
