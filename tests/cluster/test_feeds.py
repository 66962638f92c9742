"""Feeds as a person asks for them, over a real server and a real lake."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from headway.cli import context
from headway.cli.commands import feed as command
from headway.cli.main import build
from headway.cluster import feeds
from headway.cluster.compose import Installation
from headway.core.clock import SystemClock
from headway.core.control import MemoryControlStore
from headway.core.errors import HeadwayError
from headway.core.progress import RecordedProgress
from headway.core.types import Principal
from headway.features.feeds.columns import Columns
from headway.features.feeds.files import feeds_of
from headway.features.feeds.query import QueryFeed
from headway.features.feeds.run import FeedReport
from headway.features.lake.committer import Committer
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.features.streams.dead_letters import DEAD_LETTERS
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import TopicGone
from headway.governance.audit_event import MemoryAudit
from tests.features.conftest import lake, online_url, redis_url
from tests.features.oracle import SOURCE
from tests.features.streams.world import VIEW, principal

__all__ = ["lake", "online_url", "redis_url"]
HEADER = "payment,card,amount,event_time,known_time\n"
ANN = Principal(sub="ann", kind="human", scopes=frozenset({"ingest:payments"}), purpose="testing", expires=2**62)


class Place:
    """A project of one source with a view, on an installation without Ray."""

    def __init__(self, url: str, location: Location) -> None:
        self.url, self.stream, self.audit = url, RedisStream(url), MemoryAudit()
        self.reader = LakeReader(location, self.audit, SystemClock())
        self.topic = self.stream.create("payments", partitions=2)
        self.at = cast(
            Installation,
            SimpleNamespace(
                project=SimpleNamespace(use_cases=lambda: ["shop"], collect=lambda folder, kind: [SOURCE]),
                views=lambda use_case: [VIEW],
                stream=self.stream,
                control=MemoryControlStore(),
                committer=Committer(location, SystemClock()),
                clock=SystemClock(),
                audit=self.audit,
                person=lambda: ANN,
                settings=SimpleNamespace(stream_url=url),
            ),
        )

    @property
    def published(self) -> list[int]:
        return sorted(
            json.loads(message.value)["payment"]
            for partition in range(2)
            for message in self.stream.read(self.topic, partition, 0, limit=10_000)
        )

    def dead(self) -> list[tuple[int, str]]:
        found = self.reader.scan(DEAD_LETTERS.name, principal("data:read", purpose="operations"), "operations")
        return sorted(zip(found["offset"].to_pylist(), found["reason"].to_pylist(), strict=True))


@pytest.fixture
def place(online_url: str, lake: Location) -> Place:
    return Place(online_url, lake)


def write(path: Path, rows: list[str]) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def run(place: Place, path: Path, who: Principal = ANN) -> FeedReport:
    return feeds.feed(place.at, who, RecordedProgress(), "payments", lambda: feeds_of([path], Columns(source=SOURCE)))


def test_files_reach_the_topic_and_what_is_refused_the_dead_letters(place: Place, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [f"{i},{i % 3},1.5,5,6" for i in range(10)] + ["x,1,1,5,6", "11,1,1e300,5,6"])
    report = run(place, path)
    assert (report.read, report.published, report.refused) == (12, 10, 2)
    assert place.published == list(range(10))
    first, second = place.dead()
    assert (first[0], second[0]) == (11, 12)
    assert "`$.payment`" in first[1]
    assert "does not fit 53 bits" in second[1]  # a view could not take it
    assert [event.outcome for event in place.audit.events if event.action == "stream.feed"] == [
        "intended",
        "10 published, 2 refused",
    ]
    assert run(place, path).before == 12
    assert len(place.dead()) == 2


def test_who_may_not_and_a_source_without_a_topic(place: Place, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["1,1,1,5,6"])
    with pytest.raises(HeadwayError, match="ingest:payments"):
        run(place, path, principal("data:read"))
    place.stream.delete("payments")
    with pytest.raises(TopicGone):
        run(place, path)
    assert [event.outcome for event in place.audit.events] == ["denied"]


def test_polling_goes_on_until_it_is_interrupted(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as db:
        db.execute("create table pay (payment integer, card integer, amount real, event_time integer)")
        db.execute("insert into pay values (1, 1, 1, 5)")
    turns: list[Callable[[], object]] = [
        lambda: db.executescript("insert into pay values (2, 1, 1, 6)"),
        lambda: path.rename(tmp_path / "away.db"),
        lambda: (tmp_path / "away.db").rename(path),
        lambda: None,
    ]

    def sleep(seconds: float) -> None:
        assert seconds == 10.0
        if not turns:
            raise KeyboardInterrupt
        turns.pop(0)()

    monkeypatch.setattr("headway.cluster.feeds.time.sleep", sleep)
    query = QueryFeed(
        f"sqlite:///file:{path}?mode=rw&uri=true", "select * from pay", "event_time", Columns(source=SOURCE)
    )
    report = feeds.feed(place.at, ANN, RecordedProgress(), "payments", lambda: [query], every_s=10.0)
    db.close()
    assert (report.published, place.published) == (2, [1, 2])


def test_a_folder_is_looked_through_at_each_turn(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "b.csv", ["1,1,1,5,6"])

    def sleep(_: float) -> None:
        if (tmp_path / "a.csv").exists():
            raise KeyboardInterrupt
        write(tmp_path / "a.csv", ["2,1,1,5,6"])

    monkeypatch.setattr("headway.cluster.feeds.time.sleep", sleep)
    found = lambda: feeds_of([tmp_path], Columns(source=SOURCE))  # noqa: E731  # asked for at each turn
    report = feeds.feed(place.at, ANN, RecordedProgress(), "payments", found, every_s=1.0)
    assert (report.read, report.before, place.published) == (2, 0, [1, 2])


def invoke(place: Place, monkeypatch: pytest.MonkeyPatch, *words: str, given: bytes = b"") -> Any:
    monkeypatch.setattr(command, "installation", lambda _: place.at)
    monkeypatch.setattr(context, "installation", lambda _: place.at)
    return CliRunner().invoke(build(), ["stream", "feed", "payments", *words], input=given)


def test_the_command_counts_and_its_status_says_whether_something_was_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.csv", ["1,1,1,5,6", "2,1,1,5,6"])
    done = invoke(place, monkeypatch, str(path), "--json")
    assert (done.exit_code, json.loads(done.stdout)["published"]) == (0, 2)
    changes = [
        {"op": "c", "after": {"payment": 3, "card": 1, "amount": 1, "at": 5}},
        {"op": "d", "before": {"payment": 3}, "after": None},
    ]
    given = "\n".join(json.dumps(change) for change in changes).encode()
    words = ("-", "--rename", "at=event_time", "--time-unit", "ms")
    done = invoke(place, monkeypatch, *words, "--changes", "refuse", given=given)
    assert done.exit_code == 1
    assert "published 1, refused 1, skipped 0" in done.stdout
    assert "op d deletes a row" in done.stdout
    done = invoke(place, monkeypatch, *words, "--changes", "skip", given=given)
    assert done.exit_code == 0
    assert "published 1, refused 0, skipped 1" in done.stdout
    assert place.published == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ((), "PATH"),
        (("a.csv", "--topic", "x", "--changes", "skip"), "PATH"),
        (("a.csv", "--lookback", "1m"), "--lookback"),
        (("--query", "select 1"), "--query"),
        (("--topic", "x"), "--changes"),
        (("x.json", "--changes", "maybe"), "--changes"),
        (("a.csv", "--rename", "x"), "--rename"),
        (("--topic", "x", "--changes", "skip", "--every", "soon"), "--every"),
        (("ghost.csv",), "ghost.csv"),
    ],
)
def test_what_does_not_go_together_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], field: str
) -> None:
    done = invoke(place, monkeypatch, *words)
    assert isinstance(done.exception, HeadwayError)
    assert field in str(done.exception)
