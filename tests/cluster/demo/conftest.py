"""A shop's little history: four visits an hour apart, labels a day late."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pytest

from headway.core.times import DAY, HOUR, SECOND, parse_time
from headway.features.aggregates import count
from headway.features.definitions import Entity, EventSource, FeatureService, WindowView
from headway.features.history import History

START = parse_time("2020-01-01")
visits = EventSource(
    name="visits",
    columns={"visit_id": "int64", "guest_id": "int64", "amount": "float32"},
    id="visit_id",
    bucket_by="guest_id",
    purposes=("model_training",),
)
returns = EventSource(
    name="returns",
    columns={"visit_id": "int64", "guest_id": "int64", "again": "int64"},
    id="visit_id",
    bucket_by="guest_id",
)
view = WindowView(
    name="past", entity=Entity(name="guest", key="guest_id"), source=visits, aggregates=count("7d"), max_events=8
)
service = FeatureService(name="shop_v1", views=(view,), request={"amount": "float32"})


def tables(number: int) -> Mapping[str, pa.Table]:
    """Return `number` visits an hour apart from START on, and what became of them."""
    ids = list(range(number))
    at = [START + index * HOUR for index in ids]
    guests = [index % 3 for index in ids]
    return {
        "visits": pa.table(
            {
                "visit_id": ids,
                "guest_id": guests,
                "amount": pa.array([float(index) for index in ids], pa.float32()),
                "event_time": at,
                "known_time": [moment + SECOND for moment in at],
            }
        ),
        "returns": pa.table(
            {
                "visit_id": ids,
                "guest_id": guests,
                "again": [index % 2 for index in ids],
                "event_time": at,
                "known_time": [moment + DAY for moment in at],
            }
        ),
    }


@pytest.fixture
def history() -> History:
    return History(
        use_case="shop",
        sources=(visits, returns),
        load=lambda seed: tables(48),
        live_from="2020-01-01",
        live_until="2020-01-03T00:00:00Z",
        requests=visits,
        outcomes=returns,
        label="again",
    )
