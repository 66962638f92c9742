from __future__ import annotations

import dataclasses

import pytest

from headway.core.errors import DefinitionError
from headway.features.aggregates import total
from headway.features.definitions import Entity, FeatureService, RowView, WindowView
from tests.features.oracle import CARD, SOURCE, a_view


def test_an_unknown_column_or_feature_is_told_its_nearest() -> None:
    with pytest.raises(DefinitionError, match=r"spend\.aggregates: .*'amont'; did you mean 'amount'"):
        WindowView(name="spend", entity=CARD, source=SOURCE, aggregates=total("amont", "1d"), max_events=9)
    with pytest.raises(DefinitionError, match=r"spend\.columns: .*did you mean 'amount'"):
        RowView(name="spend", entity=CARD, source=SOURCE, columns=("amuont",))
    with pytest.raises(DefinitionError, match=r"spend\.entity: .*did you mean 'card'"):
        RowView(name="spend", entity=Entity(name="card", key="cards"), source=SOURCE, columns=("amount",))
    with pytest.raises(DefinitionError, match=r"paying\.features: .*did you mean 'activity__count_10us'"):
        FeatureService(name="paying", views=(a_view(),), request={}, features=("activity__count_10ms",))
    for wrong, field in ({"id": "payement"}, "id"), ({"bucket_by": "crd"}, "bucket_by"):
        with pytest.raises(DefinitionError, match=rf"payments\.{field}: .*did you mean") as caught:
            dataclasses.replace(SOURCE, **wrong)  # type: ignore[arg-type]  # the names are told by the values
        assert caught.value.field == f"payments.{field}"
