from __future__ import annotations

import asyncio
import random

import numpy as np
import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import Forbidden
from headway.core.types import Columns, Principal
from headway.features.arrow import keys as keys_of
from headway.features.definitions import FeatureService
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.online import OnlineReader, OnlineRows
from headway.features.online_store import OnlineStore
from headway.features.recompute import LakeFeatures, rows_of
from headway.governance.audit_event import MemoryAudit
from tests.features.histories import a_history
from tests.features.keyed import PARTS, Visit, service_of, visits_table
from tests.features.oracle import SOURCE as PAYMENTS
from tests.features.oracle import a_view
from tests.features.samples import table
from tests.features.test_online_store import CARDS, LIMITS, SOURCE, changes

SERVICE = FeatureService(name="mixed", views=(LIMITS, a_view(), CARDS), request={})
NAMES = ["limits", "activity", "cards"]


@pytest.fixture
def audit(clock: ManualClock) -> MemoryAudit:
    return MemoryAudit(clock)


@pytest.fixture
def reader(lake: Location, clock: ManualClock, audit: MemoryAudit, online_url: str) -> LakeReader:
    committer, store = Committer(lake, clock), OnlineStore(online_url)
    for source, rows, views in (
        (SOURCE, changes([(card, 5 + card, 6 + card, card) for card in range(0, 8, 2)]), (LIMITS, CARDS)),
        (PAYMENTS, table(a_history(400, 3)), (a_view(),)),
    ):
        committer.append(source, rows, "a")
        for view in views:
            store.write(view, rows)
    return LakeReader(lake, audit, clock)


def test_the_lake_gives_what_the_store_gives(reader: LakeReader, analyst: Principal, online_url: str) -> None:
    keys: Columns = {"card": np.array([3, 4, 3, 999, None, 2], object)}
    at = np.array([2_000, 2_010, 2_500, 2_000, 2_000, 5_000])

    async def go() -> OnlineRows:
        online = OnlineReader(SERVICE, online_url)
        try:
            return await online.read(keys, at)
        finally:
            await online.close()

    served = asyncio.run(go())
    found = LakeFeatures(SERVICE, lambda: reader, lambda: analyst).read(NAMES, keys, at)
    assert found.columns.keys() == served.columns.keys()
    for name, column in served.columns.items():
        assert str(found.columns[name].tolist()) == str(column.tolist()), name
        assert found.columns[name].dtype == column.dtype, name
    assert {name: states.tolist() for name, states in found.status.items()} == {
        name: states.tolist() for name, states in served.status.items()
    }


def test_recomputing_is_a_governed_read(reader: LakeReader, audit: MemoryAudit, analyst: Principal) -> None:
    before = len(audit.events)
    keys: Columns = {"card": np.array([3])}
    LakeFeatures(SERVICE, lambda: reader, lambda: analyst).read(["activity"], keys, np.array([9]))
    assert [(event.action, event.outcome) for event in audit.events[before:]] == [("data.read", "done")]
    curious = Principal(sub="c", kind="human", scopes=analyst.scopes, purpose="curiosity", expires=analyst.expires)
    with pytest.raises(Forbidden):
        LakeFeatures(SERVICE, lambda: reader, lambda: curious).read(["activity"], keys, np.array([9]))


def test_only_rows_of_the_wanted_keys_are_read(reader: LakeReader, analyst: Principal) -> None:
    from headway.features.lake.reader import read_files

    plan = reader.plan(PAYMENTS, analyst, "testing")
    rows = read_files(plan.schema, plan.paths, ["card"], keys=("card", pa.array([3, 4])))
    assert set(rows["card"].to_pylist()) == {3, 4}


@pytest.mark.parametrize("bucket_by", ["user", "shop", "visit"])
def test_all_rows_of_some_keys(bucket_by: str, lake: Location, clock: ManualClock, analyst: Principal) -> None:
    """Whatever the lake is cut by, and for keys of which the texts of the parts could be taken for each other."""
    rng, parts = random.Random(4), (*PARTS, None)
    visits = [Visit(rng.choice(parts), rng.choice(parts), at, at + 1, at, at) for at in range(300)]
    service = service_of(bucket_by)
    Committer(lake, clock).append(service.stored[0].source, visits_table(visits), "a")
    reader = LakeReader(lake, MemoryAudit(clock), clock)
    for view in service.stored:
        owner = keys_of(visits_table(visits), view.entity)
        wanted = np.array(sorted({key for key in owner.tolist() if key is not None})[::3], object)
        found = rows_of(view, wanted, reader, analyst)
        expected = [visit.id for visit, key in zip(visits, owner.tolist(), strict=True) if key in set(wanted.tolist())]
        assert sorted(found["visit"].to_pylist()) == expected
        assert rows_of(view, wanted[:0], reader, analyst).num_rows == 0
