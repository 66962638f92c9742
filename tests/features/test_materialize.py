from __future__ import annotations

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import Unavailable
from headway.core.types import Principal
from headway.features import materialize as module
from headway.features.evolution import version_name
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.materialize import materialize
from headway.features.online_store import OnlineStore
from headway.governance.audit_event import MemoryAudit
from tests.features.oracle import SOURCE, Event, a_view
from tests.features.samples import table

VIEW = a_view()


def events(first: int, count: int) -> list[Event]:
    return [Event(i % 9, i, i + 1, i, i) for i in range(first, first + count)]


@pytest.fixture
def writer(lake: Location, clock: ManualClock) -> Committer:
    writer = Committer(lake, clock)
    writer.append(SOURCE, table(events(0, 100)), "a")
    return writer


@pytest.fixture
def reader(writer: Committer, lake: Location, clock: ManualClock) -> LakeReader:
    return LakeReader(lake, MemoryAudit(clock), clock)


def test_the_next_run_reads_only_what_was_added(
    writer: Committer, reader: LakeReader, analyst: Principal, online_url: str
) -> None:
    store = OnlineStore(online_url)
    assert materialize([VIEW], reader, store, analyst, "testing")[version_name(VIEW)].events == 100
    assert store.watermark(VIEW) == 100
    assert materialize([VIEW], reader, store, analyst, "testing")[version_name(VIEW)].events == 0
    writer.append(SOURCE, table(events(100, 30)), "b")
    assert materialize([VIEW], reader, store, analyst, "testing")[version_name(VIEW)].events == 30
    assert store.watermark(VIEW) == 130
    store.clear(VIEW)
    assert materialize([VIEW], reader, store, analyst, "testing")[version_name(VIEW)].events == 130


def test_an_interrupted_run_goes_on_where_it_stopped(
    reader: LakeReader, analyst: Principal, online_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = OnlineStore(online_url)
    written: list[int] = []
    write = module._bucket

    def broken(*given: object) -> tuple[int, int]:
        if len(written) == 2:
            raise Unavailable("the server went away", retry_after_s=1.0)
        written.append(1)
        return write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_bucket", broken)
    with pytest.raises(Unavailable):
        materialize([VIEW], reader, store, analyst, "testing")
    assert store.watermark(VIEW) == 0, "a view that is half there must not look complete"
    monkeypatch.setattr(module, "_bucket", write)
    rest = materialize([VIEW], reader, store, analyst, "testing")[version_name(VIEW)].events
    assert 0 < rest < 100
    assert store.watermark(VIEW) == 100


def test_a_replay_up_to_a_moment_is_not_remembered(reader: LakeReader, analyst: Principal, online_url: str) -> None:
    store = OnlineStore(online_url)
    assert materialize([VIEW], reader, store, analyst, "testing", known_by=50)[version_name(VIEW)].events == 50
    assert (store.watermark(VIEW), store.materialized(VIEW)) == (50, {})
    assert materialize([VIEW], reader, store, analyst, "testing")[version_name(VIEW)].events == 100


def test_only_versions_that_nobody_uses_are_retired(reader: LakeReader, analyst: Principal, online_url: str) -> None:
    store, other = OnlineStore(online_url), a_view(7, name="other")
    longer = a_view(retention=90)
    reports = materialize([VIEW, longer, other], reader, store, analyst, "testing")
    assert list(reports) == [version_name(view) for view in (VIEW, longer, other)]
    assert {report.events for report in reports.values()} == {100}
    assert store.retire({"activity"}, [VIEW, longer]) == 0
    assert store.retire({"activity"}, [longer]) == 9
    assert [store.watermark(view) for view in (VIEW, longer, other)] == [0, 100, 100]
    assert store.materialized(VIEW) == {}
