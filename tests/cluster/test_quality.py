"""Quality of a use case's sources, as people ask for it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from features.fraud import transactions
from features.simulators import fraud as simulator
from headway.cluster import quality
from headway.cluster.compose import Installation
from headway.core.control import MemoryControlStore
from headway.core.errors import Forbidden, InvalidValue, NotFound
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.core.types import Principal
from headway.features.definitions import EventSource
from headway.features.history import History
from headway.features.quality.expectations import between
from headway.features.quality.gate import Gate
from headway.features.quality.profiles import Profiles, count
from headway.features.quality.quarantine import Quarantine, quarantine_folder
from tests.cluster.demo.conftest import START, history, tables
from tests.cluster.test_history import World

__all__ = ["history"]


def person(*scopes: str, purpose: str = "testing") -> Principal:
    return Principal(sub="petra", kind="human", scopes=frozenset(scopes), purpose=purpose, expires=START + 5 * DAY)


class Guarded(World):
    """The world of ingestion, whose visits promise an amount below five."""

    def __init__(self, settings: Settings, history: History) -> None:
        super().__init__(settings)
        (visits,) = (source for source in history.sources if source.name == "visits")
        column = next(name for name, dtype in visits.columns.items() if dtype == "float32")
        self.source = dataclasses.replace(visits, expectations=(between(column, 0, 5),))
        others = (source for source in history.sources if source.name != "visits")
        self.history = dataclasses.replace(history, sources=(self.source, *others))
        self.table = dict(tables(48))["visits"]
        self.bad = self.table.set_column(
            self.table.column_names.index(column), column, pa.array(np.full(len(self.table), 7, np.float32))
        )
        clock = self.at.clock
        gate = Gate(quarantine=Quarantine(quarantine_folder(settings), clock), profiles=Profiles(MemoryControlStore()))
        more = {
            "quality": gate,
            "project": SimpleNamespace(use_cases=lambda: ["shop"], collect=lambda folder, kind: [self.source]),
        }
        self.at = cast(Installation, SimpleNamespace(**{**vars(self.at), **more}))

    def release(self, who: Principal, **changed: Any) -> Any:
        given: dict[str, Any] = {"source": None, "reason": "checked", "keep_known_time": False, **changed}
        (case,) = self.at.quality.quarantine.cases(settled=True)
        return quality.release(self.at, who, case.batch, **given)


@pytest.fixture
def guarded(settings: Settings, history: History) -> Guarded:
    return Guarded(settings, history)


def test_a_batch_is_held_shown_released_and_then_served(guarded: Guarded) -> None:
    with pytest.raises(InvalidValue, match="48 of 48 rows"):
        guarded.ingest(
            guarded.history, {"visits": guarded.bad, "returns": tables(48)["returns"]}, watermark=START + DAY
        )
    assert guarded.online.written == []
    assert guarded.rows("events.returns") == 48, "one source does not stop another"
    reader = person("data:read")
    held = guarded.at.quality.quarantine
    (case,) = quality.cases(held, reader)
    sources = {"visits": guarded.source}
    allowed = person("data:read", purpose=guarded.source.purposes[0])
    assert quality.case(held, sources, allowed, case.batch, None).report.findings[0].example == "7.0"
    withheld = quality.case(held, sources, reader, case.batch, None)
    assert withheld.report.findings[0].example == quality.WITHHELD
    with pytest.raises(Forbidden, match="quality:write"):
        guarded.release(reader)
    done = guarded.release(person("quality:write"))
    assert guarded.rows("events.visits") == 48
    assert {rows for _, rows in guarded.online.written} == {48}
    assert set(guarded.online.watermarks.values()) == {0}, "a release says nothing of what else is known"
    assert guarded.release(person("quality:write")) == done
    assert guarded.rows("events.visits") == 48
    assert [event.actor for event in guarded.audit.events if event.action == "quality.release"] == ["petra"]
    profile = quality.profile(guarded.at, reader, "visits")
    assert (profile.rows, profile.against_rows) == (48, 0)


def test_who_may_not_read_data_sees_no_case(guarded: Guarded) -> None:
    held = guarded.at.quality.quarantine
    with pytest.raises(Forbidden, match="data:read"):
        quality.cases(held, person())
    with pytest.raises(Forbidden, match="data:read"):
        quality.case(held, {}, person(), "b", None)
    with pytest.raises(Forbidden, match="data:read"):
        quality.profile(guarded.at, person(), "visits")


def test_a_profile_of_nothing_says_so(guarded: Guarded) -> None:
    with pytest.raises(NotFound, match="unknown ingested row of source 'visits'"):
        quality.profile(guarded.at, person("data:read"), "visits")
    with pytest.raises(NotFound, match="did you mean 'visits'"):
        quality.profile(guarded.at, person("data:read"), "visit")


def shifted(source: EventSource, table: pa.Table, newest: int) -> set[str]:
    profiles = Profiles(MemoryControlStore())
    profiles.add(source, table, "a")
    days = [day for day in profiles.days(source) if day.day <= newest]
    found = quality.compare(source, days[-1:], days[-29:-1])
    return {column.column for column in found.columns if column.warns}


def test_a_changed_world_shows_on_the_day_it_is_ingested() -> None:
    """Prices rise and stolen cards are tested on day 35 of 40: seen on counts, with no model and no label."""
    change = simulator.START + 35 * DAY
    plain = dict(simulator.tables(3, days=40))["transactions"]
    drifted = dict(simulator.tables(3, days=40, drift_from=change))["transactions"]
    first = change // DAY
    assert shifted(transactions, drifted, first - 1) == set()
    assert shifted(transactions, drifted, first) == {"amount"}
    assert [shifted(transactions, plain, day) for day in range(first, first + 4)] == [set()] * 4


def test_percentiles_are_those_of_the_values_to_a_fifth() -> None:
    table = dict(simulator.tables(3, days=2))["transactions"]
    profiles = Profiles(MemoryControlStore())
    profiles.add(transactions, table, "a")
    found = quality.compare(transactions, profiles.days(transactions), [])
    (amount,) = (column for column in found.columns if column.column == "amount")
    values = table["amount"].to_numpy()
    for shown, share in ((amount.low, 0.05), (amount.median, 0.5), (amount.high, 0.95)):
        true = float(np.quantile(values, share, method="inverted_cdf"))
        assert shown is not None
        assert true <= shown <= 1.2 * true
    assert (amount.missing, found.rows) == (0.0, table.num_rows)
    assert count(transactions, table).sum() == 3 * table.num_rows
