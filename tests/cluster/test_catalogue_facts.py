from __future__ import annotations

import pytest

from headway.cluster.catalogue_facts import facts
from headway.core.errors import NotFound
from tests.cluster.catalogue_world import a_catalogue


def test_a_view_tells_whose_it_is_how_fresh_and_who_decides_by_it() -> None:
    found = facts(a_catalogue(), "activity")
    assert (found["kind"], found["complete_to"]) == ("view", "2026-01-01T12:00:00Z")
    assert found["tags"] == ("financial", "pii")
    assert found["used_by"] == ["first", "second"]
    assert found["use_cases"] == ["fraud", "churn"]
    assert found["table"]["rows"] == 1_234
    assert [(one["version"], one["total"]) for one in found["decisions"]] == [("3", 5_000)]
    assert "a window may begin up to 1us too early" in found["limits"]


def test_sources_services_and_features_are_found_by_name() -> None:
    catalogue = a_catalogue()
    source = facts(catalogue, "payments")
    assert source == facts(catalogue, "events.payments")
    assert (source["kind"], source["used_by"], source["reads"][0]["actor"]) == ("source", ["activity", "ever"], "ana")
    service = facts(catalogue, "second")
    assert (service["use_cases"], service["decisions"]) == (["churn"], [])
    feature = facts(catalogue, "activity__amount_mean_10us")
    assert (feature["meaning"], feature["tags"]) == ("mean of amount, 10us", ("financial",))
    assert (feature["view"], feature["used_by"]) == ("activity", ["first", "second"])
    assert facts(catalogue, "amount")["meaning"] == "comes with the request"


def test_an_unknown_name_is_told_its_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'activity__amount_mean_10us'"):
        facts(a_catalogue(), "activity__amount_mean_10s")
