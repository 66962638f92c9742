"""A catalogue of two services that share a source, with everything known of it."""

from __future__ import annotations

from dataclasses import replace

from headway.cluster.catalogue import Catalogue, ModelVersion
from headway.cluster.lake_status import TableStatus
from headway.cluster.usage import Decisions, Reads
from headway.features.catalogue.card import service_card
from headway.features.definitions import FeatureService
from tests.features.oracle import SOURCE, a_view, endless_view

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp; \'"'
TAGGED = replace(
    SOURCE, tags={"card": ("pii",), "amount": ("financial",)}, owner="ops@example.com", description=HOSTILE
)


def a_catalogue() -> Catalogue:
    activity = replace(a_view(max_events=None, hop="1us"), source=TAGGED, description=HOSTILE, owner=HOSTILE)
    ever = replace(endless_view(30), source=TAGGED, description="Since the card was made.")
    first = FeatureService(name="first", views=(activity,), request={"amount": "float32"}, description=HOSTILE)
    second = FeatureService(name="second", views=(activity, ever), request={})
    table = TableStatus(
        table="events.payments", rows=1_234, files=2, mebibytes=0.1, snapshots=3, snapshot_id=77,
        small=0, pinned=0, waiting=0,
        committed="2026-01-01T00:00:00Z",
    )  # fmt: skip
    cards = tuple(service_card(service) for service in (first, second))
    return Catalogue(
        made="2026-01-02T00:00:00Z",
        services=cards,
        hashes={"first": first.sha256(), "second": second.sha256()},
        use_cases={"fraud": "first", "churn": "second"},
        tables={"events.payments": table},
        watermarks={cards[0].views[0].version: "2026-01-01T12:00:00Z", cards[1].views[1].version: ""},
        models=(
            ModelVersion(
                use_case="fraud", version="3", state="ready", aliases=("champion",), service="first",
                created="2026-01-01T10:00:00Z", snapshots={"events.payments": 70},
            ),
            ModelVersion(use_case="churn", version="1", state="failed", aliases=()),
        ),
        decisions=(Decisions(use_case="fraud", version="3", total=5_000, last_day=40, last=1),),
        reads=(Reads(table="events.payments", actor="ana", purpose="model_training", total=4, last=1),),
        notes=(HOSTILE,),
    )  # fmt: skip
