from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.errors import CorruptState, Unavailable
from headway.features.feeds.files import CsvFeed
from headway.features.streams.port import TopicFull, TopicGone
from tests.features.feeds.test_files import write_csv
from tests.features.feeds.world import COLUMNS, World, row


def test_a_full_stream_is_waited_for(tmp_path: Path) -> None:
    world = World()
    world.faults = [TopicFull("sales", [0]), Unavailable("away", retry_after_s=1.0)] * 3
    assert world.run(CsvFeed(write_csv(tmp_path / "a.csv", [row(1)]), COLUMNS)).published == 1
    assert world.pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_one_that_stays_away_is_given_up_and_nothing_is_marked(tmp_path: Path) -> None:
    world = World()
    feed = CsvFeed(write_csv(tmp_path / "a.csv", [row(1)]), COLUMNS)
    world.faults = [Unavailable("away", retry_after_s=1.0)] * 1_000
    with pytest.raises(Unavailable):
        world.run(feed)
    world.faults = [TopicGone("gone", retry_after_s=1.0)] * 2
    with pytest.raises(TopicGone):
        world.run(feed)
    world.faults = []
    assert world.run(feed).before == 0


def test_a_mark_that_cannot_be_read_says_the_way_out(tmp_path: Path) -> None:
    world = World()
    feed = CsvFeed(write_csv(tmp_path / "a.csv", [row(1)]), COLUMNS)
    world.run(feed)
    (key,) = world.control._records
    world.control.put(key, b"{", expected=1)
    with pytest.raises(CorruptState, match="--restart"):
        world.run(feed)
