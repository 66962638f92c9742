from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.types import Columns, Principal
from headway.features.consistency import CONSISTENT, NOTHING, SKEWED, check
from headway.features.definitions import FeatureService
from headway.features.historical import offline_features
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.transformations import transformation
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE, Event, a_view
from tests.features.samples import table

ROWS = 200


@transformation(inputs=("amount",), outputs=("cents",))
def cents(columns: Columns) -> Columns:
    return {"cents": columns["amount"].astype(np.float32) * np.float32(100)}


SERVICE = FeatureService(name="checked", views=(a_view(),), request={"amount": "float32"}, transformations=(cents,))


@pytest.fixture
def reader(lake: Location, clock: ManualClock) -> LakeReader:
    rng = np.random.default_rng(4)
    history = [Event(int(k), t, t + 1, t, int(v)) for t, (k, v) in enumerate(rng.integers(0, 9, (600, 2)) * 100)]
    Committer(lake, clock).append(SOURCE, table(history), "a")
    return LakeReader(lake, MemoryAudit(clock), clock)


@pytest.fixture
def served(reader: LakeReader, analyst: Principal) -> pa.Table:
    return offline_features(spine(), SERVICE, reader, analyst, "testing")


def spine(behind: int = 0) -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "card": rng.integers(0, 10, ROWS) * 100,
            "amount": rng.random(ROWS).astype(np.float32),
            "event_time": rng.integers(50, 600, ROWS) - behind,
        }
    )


def replaced(log: pa.Table, name: str, values: object) -> pa.Table:
    return log.set_column(log.column_names.index(name), name, pa.array(values))


def test_equal_reads_are_consistent(reader: LakeReader, analyst: Principal, served: pa.Table) -> None:
    report = check(SERVICE, served, reader, analyst, "testing")
    assert (report.reads, report.mismatches, report.verdict, report.differing) == (ROWS, 0, CONSISTENT, ())
    assert {feature.equal for feature in report.features} == {ROWS}
    assert check(SERVICE, served.slice(0, 0), reader, analyst, "testing").verdict == NOTHING


def test_a_changed_unit_is_found(reader: LakeReader, analyst: Principal, served: pa.Table) -> None:
    dollars = served["cents"].to_numpy() / np.float32(100)
    report = check(SERVICE, replaced(served, "cents", dollars), reader, analyst, "testing")
    assert report.verdict == SKEWED
    (found,) = report.differing
    assert (found.feature, found.compared, found.mismatched, found.missing, found.extra) == ("cents", ROWS, ROWS, 0, 0)
    assert found.worst is not None
    assert found.worst.row == int(dollars.argmax())


def test_a_view_that_lags_is_found(reader: LakeReader, analyst: Principal, served: pa.Table) -> None:
    late = offline_features(spine(behind=15), SERVICE, reader, analyst, "testing")
    for name in a_view().features:
        served = replaced(served, name, late[name].to_numpy())
    report = check(SERVICE, served, reader, analyst, "testing")
    assert report.verdict == SKEWED
    assert report.mismatches > ROWS // 2
    assert {feature.feature for feature in report.differing} <= set(a_view().features)


def test_missing_and_extra_values_are_told_apart(reader: LakeReader, analyst: Principal, served: pa.Table) -> None:
    name = "activity__amount_mean_40us"
    values = served[name].to_numpy().copy()
    there, absent = np.flatnonzero(~np.isnan(values)), np.flatnonzero(np.isnan(values))
    values[there[0]], values[absent[:2]] = np.nan, 1.0
    report = check(SERVICE, replaced(served, name, values), reader, analyst, "testing")
    (found,) = report.differing
    assert (found.mismatched, found.missing, found.extra) == (0, 1, min(2, len(absent)))
    assert found.worst is not None
    assert None in (found.worst.served, found.worst.recomputed)
