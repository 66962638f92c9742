from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from feast import FeatureStore

from tests.features.feast.universe import a_store, online_of


@pytest.fixture
def store(tmp_path: Path, online_url: str) -> Iterator[FeatureStore]:
    """A repository with both plug-ins."""
    made = a_store(tmp_path, online_url)
    yield made
    if online_of(made)._server is not None:
        online_of(made)._server.close()
