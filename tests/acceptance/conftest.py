"""One real platform with a live churn use case, in a home and a copy of the definitions of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.platform import Platform
from tests.cluster.kubernetes.conftest import crds
from tests.conftest import ROOT

__all__ = ["crds"]
DEFINITIONS = ("features", "training", "serve_apps", "monitoring", "cluster")
MARKS = (pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(600))
LAST = ("test_second_demo.py", "test_down.py")
"""They change what every other test relies on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the platform, and let what replaces or stops it come last of this folder."""
    places = [place for place, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    here = [items[place] for place in places]
    here.sort(key=lambda item: LAST.index(item.path.name) + 1 if item.path.name in LAST else 0)
    for place, item in zip(places, here, strict=True):
        items[place] = item
        for mark in MARKS:
            item.add_marker(mark)


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on which `headway demo --use-case churn` has run; stopped at the end whatever happened."""
    root = tmp_path_factory.mktemp("acceptance")
    project = root / "project"
    project.mkdir()
    for name in DEFINITIONS:
        ignored = shutil.ignore_patterns("contract.signatures.json", "__pycache__")
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    platform = Platform(home=root / "home", project=project, programs=Path(sys.executable).parent)
    try:
        platform.demo(requests=600)
        yield platform
    finally:
        platform.headway("down")
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def http(platform: Platform) -> Iterator[httpx.Client]:
    """Connections to the churn application."""
    with httpx.Client(base_url=f"{platform.url}/churn", timeout=20.0, trust_env=False) as client:
        yield client


@pytest.fixture
def authorised(platform: Platform, http: httpx.Client) -> httpx.Client:
    """The same, with a token that may decide, post outcomes and choose the time."""
    token = platform.token("decide:churn", "outcomes:churn", "replay:churn")
    http.headers["authorization"] = f"Bearer {token}"
    return http
