from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.errors import NotFound
from headway.core.project import Project
from headway.features.named import service_named, source_named

ROOT = Path(__file__).parents[2]


def test_definitions_are_found_by_name_and_the_nearest_is_named() -> None:
    project = Project(ROOT)
    assert source_named(project, "transactions").name == "transactions"
    assert service_named(project, "fraud_v1").name == "fraud_v1"
    with pytest.raises(NotFound, match="unknown source 'transaction'; did you mean 'transactions'"):
        source_named(project, "transaction")
    with pytest.raises(NotFound, match=r"fraud\.decision: unknown feature service 'fraud_v'; did you mean 'fraud_v1'"):
        service_named(project, "fraud_v", field="fraud.decision")
