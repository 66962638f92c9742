"""Rendered manifests and the CRDs that they must satisfy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from headway.cluster.kubernetes import render
from headway.cluster.kubernetes.validate import Schemas, load_crds, read_manifests
from headway.core.project import Project
from headway.core.settings import Settings

ROOT = Path(__file__).parents[3]
Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def crds() -> Schemas:
    """Schemas of KubeRay's and the Prometheus operator's kinds."""
    folder = Path(os.environ.get("HEADWAY_TEST_SCHEMAS", ROOT.parent / "shared" / "schemas")) / "kubernetes"
    if not folder.is_dir():
        pytest.skip("the CRDs of KubeRay are not here: ../shared/schemas/kubernetes is absent")
    return load_crds(folder)


@pytest.fixture(scope="session", params=["fraud", "churn"])
def use_case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def manifests(use_case: str, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    out = tmp_path_factory.mktemp("manifests")
    return read_manifests(render(use_case, Project(ROOT), Settings(), out))


def one(manifests: list[Manifest], kind: str) -> Manifest:
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    assert len(found) == 1
    return found[0]
