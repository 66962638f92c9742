from __future__ import annotations

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import NotFound
from headway.core.times import DAY
from headway.features.lake.committer import Committer
from headway.features.lake.pins import RUN_AT_MOST, TrainingPins, abandoned
from headway.features.lake.retention import Retention
from headway.features.lake.tables import Location, open_catalog
from tests.features.oracle import SOURCE
from tests.features.samples import batch

NONE = Retention(newest=1, hourly=0, daily=0)


def there(lake: Location) -> set[int]:
    return {snapshot.snapshot_id for snapshot in open_catalog(lake).load_table(SOURCE.table).metadata.snapshots}


def test_a_training_holds_its_snapshots_while_it_runs_and_its_version_for_good(
    lake: Location, clock: ManualClock
) -> None:
    committer = Committer(lake, clock)
    first, second, _ = (committer.append(SOURCE, batch(i, 1), str(i)) for i in range(3))
    with TrainingPins(committer, clock) as pins:
        assert pins.hold_newest("a", lambda: {SOURCE.table: first}) == {SOURCE.table: first}
        pins.hold_newest("b", lambda: {SOURCE.table: second})
        committer.expire_step(SOURCE.table, (), NONE)
        assert {first, second} < there(lake)
        pins.keep("fraud", "4", {SOURCE.table: first})
    committer.expire_step(SOURCE.table, (), NONE)
    assert first in there(lake)
    assert second not in there(lake)


def test_a_snapshot_that_expires_before_it_is_pinned_is_chosen_anew(lake: Location, clock: ManualClock) -> None:
    committer = Committer(lake, clock)
    newest = committer.append(SOURCE, batch(0, 1), "a")
    answers = iter([{SOURCE.table: 42}, {SOURCE.table: newest}])
    pins = TrainingPins(committer, clock)
    assert pins.hold_newest("a", lambda: next(answers)) == {SOURCE.table: newest}
    with pytest.raises(NotFound, match="snapshot"):
        pins.hold_newest("b", lambda: {SOURCE.table: 42})


def test_a_killed_training_does_not_hold_for_ever(lake: Location, clock: ManualClock) -> None:
    committer = Committer(lake, clock)
    first, _ = (committer.append(SOURCE, batch(i, 1), str(i)) for i in range(2))
    TrainingPins(committer, clock).hold_newest("killed", lambda: {SOURCE.table: first})
    clock.advance(RUN_AT_MOST)
    committer.expire_step(SOURCE.table, (), NONE)
    assert first in there(lake)
    clock.advance(DAY)
    committer.expire_step(SOURCE.table, (), NONE)
    assert first not in there(lake)
    assert abandoned(["version:fraud/1", "run:x:y", "main"], clock.now()) == []
