from __future__ import annotations

import threading

import numpy as np
import pytest

from headway.core.errors import DefinitionError
from headway.core.types import Columns
from headway.features.closure import source_of
from headway.features.definitions import FeatureService
from headway.features.transformations import transformation

LIMIT = 3.0
TABLE = np.array([1.0, 2.0])
LOCK = threading.Lock()


def helper(values: Columns) -> Columns:
    return {"high": values["amount"].astype(np.float32) > LIMIT}


def uses(values: Columns) -> Columns:
    return {**helper(values), **{"low": values["amount"].astype(np.float32) < TABLE[0]}}


def locked(values: Columns) -> Columns:
    with LOCK:
        return values


def test_helpers_and_constants_belong_to_a_function() -> None:
    text = source_of(uses)
    assert text.startswith("def uses")
    assert "def helper" in text
    assert "LIMIT = 3.0" in text
    assert "TABLE = array(float64, [1.0, 2.0])" in text


def test_a_changed_constant_is_another_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def service() -> FeatureService:
        step = transformation(inputs=("amount",), outputs=("high", "low"))(uses)
        return FeatureService(name="s", views=(), request={"amount": "float32"}, transformations=(step,))

    before = service().sha256()
    assert service().sha256() == before
    monkeypatch.setattr("tests.features.test_closure.LIMIT", 4.0)
    assert service().sha256() != before


def test_what_has_no_stable_text_is_refused_by_name() -> None:
    with pytest.raises(DefinitionError, match=r"locked\.LOCK"):
        source_of(locked)
