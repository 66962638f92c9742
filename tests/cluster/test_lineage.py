from __future__ import annotations

import pytest

from headway.cluster.lineage import lineage
from headway.core.errors import NotFound
from tests.cluster.catalogue_world import a_catalogue


def test_a_line_leads_from_a_snapshot_to_the_versions_that_rest_on_it() -> None:
    catalogue = a_catalogue()
    lines = lineage(catalogue)
    assert [(line.source, line.view, line.service) for line in lines] == [
        ("payments", "activity", "first"),
        ("payments", "activity", "second"),
        ("payments", "ever", "second"),
    ]
    assert {line.snapshot_id for line in lines} == {77}
    (model,) = lines[0].models
    assert (model.use_case, model.version, model.aliases, model.snapshot_id) == ("fraud", "3", ("champion",), 70)
    (unsigned,) = lines[2].models
    assert (unsigned.use_case, unsigned.state, unsigned.snapshot_id) == ("churn", "failed", None)
    assert lines[0].sha256 == catalogue.hashes["first"]


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("payments", ["activity", "activity", "ever"]),
        ("events.payments", ["activity", "activity", "ever"]),
        ("first", ["activity"]),
        ("churn", ["activity", "ever"]),
        ("ever", ["ever"]),
        ("activity__count_10us", ["activity", "activity"]),
    ],
)
def test_it_is_followed_from_either_end(name: str, views: list[str]) -> None:
    assert [line.view for line in lineage(a_catalogue(), name)] == views


def test_an_unknown_name_is_told_its_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'activity'"):
        lineage(a_catalogue(), "activty")
