from __future__ import annotations

import io
import json
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.errors import Conflict, InvalidValue
from headway.features.feeds import chunk
from headway.features.feeds.change_feeds import InputFeed, LinesFeed, TopicFeed
from headway.features.feeds.changes import Changes, OtherChanges
from headway.features.feeds.columns import Columns
from headway.features.streams.drivers.redis import RedisStream
from headway.features.streams.port import RetentionGap
from tests.features.feeds.world import COLUMNS, SALES, Stopped, World, row

REFUSE = Changes(columns=COLUMNS, others=OtherChanges.REFUSE)
SKIP = Changes(columns=COLUMNS, others=OtherChanges.SKIP)


def change(op: str, after: Any, before: Any = None, schema: Any = None) -> bytes:
    payload = {"op": op, "before": before, "after": after, "ts_ms": 5, "source": {"table": "sales"}}
    return json.dumps(payload if schema is None else {"schema": schema, "payload": payload}).encode()


def fields(**kinds: Any) -> dict[str, Any]:
    inner = [{"field": name, **kind} for name, kind in kinds.items()]
    return {"type": "struct", "fields": [{"field": "before", "fields": []}, {"field": "after", "fields": inner}]}


@pytest.mark.parametrize("op", ["c", "r"])
@pytest.mark.parametrize("schema", [None, fields(), {}, {"fields": "?"}])
def test_an_inserted_row_is_an_event(op: str, schema: Any) -> None:
    made = REFUSE.event(change(op, row(3) | {"of_no_use": 1}, schema=schema))
    assert made is not None
    assert json.loads(made) == row(3)


@pytest.mark.parametrize("op", ["u", "d", "t"])
def test_other_changes_are_refused_or_skipped_as_declared(op: str) -> None:
    value = change(op, row(1) if op == "u" else None, row(1))
    assert SKIP.event(value) is None
    with pytest.raises(ValueError, match=f"op {op} .* events of sales are only added"):
        REFUSE.event(value)


@pytest.mark.parametrize("value", [b"", b"null", b" \n", b'{"schema": null, "payload": null}'])
def test_tombstones_are_skipped(value: bytes) -> None:
    assert REFUSE.event(value) is None


@pytest.mark.parametrize(
    "value",
    [
        b"{", b"\xff", b"[]", b"5", b"{}", b"[" * 100_000, b'{"payload": 5}', b'{"op": "c"}',
        b'{"op": "c", "after": 5}', b'{"op": "m", "after": {}}', b'{"op": [], "after": {}}', b'{"op": {}, "after": {}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("changes", [REFUSE, SKIP])
def test_poison_is_refused_either_way(value: bytes, changes: Changes) -> None:
    with pytest.raises(ValueError, match=r"."):
        changes.event(value)


NAMES = st.sampled_from(["op", "after", "before", "schema", "payload", "fields", "field", "sale", "name"])
ANY = st.none() | st.booleans() | st.integers() | st.sampled_from(["c", "u", "after"])


@given(st.recursive(ANY, lambda inner: st.dictionaries(NAMES, inner) | st.lists(inner), max_leaves=12))
def test_any_json_is_an_event_skipped_or_refused(value: Any) -> None:
    try:
        made = REFUSE.event(json.dumps(value).encode())
    except ValueError as error:
        assert str(error)
    else:
        assert made is None or isinstance(json.loads(made), dict)


def test_times_and_decimals_are_what_their_schema_says() -> None:
    debezium, connect = "io.debezium.time.", "org.apache.kafka.connect.data."
    scale = {"parameters": {"scale": "2"}}
    schema = fields(
        due={"type": "int32", "name": f"{debezium}Date"},
        event_time={"type": "int64", "name": f"{debezium}Timestamp"},
        at={"type": "int64", "name": f"{debezium}NanoTimestamp"},
        amount={"type": "bytes", "name": f"{connect}Decimal", **scale},
        big={"type": "bytes", "name": f"{connect}Decimal", **scale},
    )
    values = {
        "due": 1, "event_time": 2_000, "at": 3_000_999,
        "amount": b64encode((1_234).to_bytes(2, "big")).decode(),
        "big": b64encode((-5).to_bytes(1, "big", signed=True)).decode(),
    }  # fmt: skip
    changes = Changes(columns=Columns(source=SALES, renamed={"at": "known_time"}), others=OtherChanges.SKIP)
    made = json.loads(changes.event(change("c", row(1) | values, schema=schema)) or b"")
    assert (made["due"], made["event_time"], made["known_time"]) == (86_400_000_000, 2_000_000, 3_000)
    assert (made["amount"], made["big"]) == (12.34, -0.05)
    for wrong in ("§", 5.5, None):
        try:
            made = json.loads(changes.event(change("c", row(1) | values | {"amount": wrong}, schema=schema)) or b"")
        except ValueError:
            continue
        assert made["amount"] == wrong  # left to the judgement of events


def test_without_a_schema_the_unit_is_declared() -> None:
    milli = Changes(columns=COLUMNS, others=OtherChanges.SKIP, time_unit="ms")
    made = json.loads(milli.event(change("c", row(1) | {"event_time": 7, "due": "2020-01-01T00:00:00Z"})) or b"")
    assert (made["event_time"], made["due"], made["sale"]) == (7_000, "2020-01-01T00:00:00Z", 1)
    with pytest.raises(InvalidValue, match="--time-unit"):
        Changes(columns=COLUMNS, others=OtherChanges.SKIP, time_unit="min")


def lines(count: int) -> list[bytes]:
    return [change("u", row(i), row(i)) if i % 5 == 3 else change("c", row(i)) for i in range(count)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(1, 7), st.lists(st.integers(2, 30), max_size=4), st.booleans())
def test_lines_that_die_anywhere_lose_nothing(count: int, size: int, deaths: list[int], end: bool) -> None:
    world = World()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(chunk, "CHUNK_ROWS", size)
        path = Path(folder) / "a.ndjson"
        path.write_bytes(b"\n".join(lines(count)) + (b"\n" if end and count else b""))
        for death in deaths:
            world.effects, world.stop_at = 0, death
            try:
                world.run(LinesFeed(path, REFUSE))
            except Stopped:
                continue
        world.stop_at = -1
        last = world.run(LinesFeed(path, REFUSE))
        assert last.before + last.read == count
        assert set(world.ids) == {i for i in range(count) if i % 5 != 3}
        assert sorted(number for number, _ in world.dead) == [i + 1 for i in range(count) if i % 5 == 3]


def test_standard_input_is_read_once_and_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.features.feeds.change_feeds.MAX_MESSAGE", 400)
    data = b"\n".join([change("c", row(1)), b"", b"x" * 1_000, change("d", None, row(1)), change("c", row(2))])
    world = World()
    report = world.run(InputFeed(io.BytesIO(data), SKIP))
    assert (report.published, report.refused, report.skipped) == (2, 1, 1)
    assert report.reasons == ["line 3: is longer than 400 bytes"]
    assert world.control._records == {}


def test_a_topic_is_read_from_where_it_was_left(online_url: str) -> None:
    stream = RedisStream(online_url)
    topic = stream.create("db.shop.sales", partitions=3)

    def publish(first: int, count: int) -> None:
        stream.publish(topic, [(f"k{i}".encode(), change("c", row(i))) for i in range(first, first + count)])

    def feed() -> TopicFeed:
        return TopicFeed(stream, "db.shop.sales", "here", REFUSE)

    world = World()
    publish(0, 20)
    assert world.run(feed()).published == 20
    publish(20, 20)
    stream.publish(topic, [(b"k", change("d", None, row(1)))])
    report = world.run(feed())
    assert (report.published, report.refused) == (20, 1)
    assert report.reasons[0].startswith("db.shop.sales/")
    assert set(world.ids) == set(range(40))
    publish(40, 20)
    for partition in range(3):
        stream.release(topic, partition, stream.bounds(topic, partition).end - 1)
    with pytest.raises(RetentionGap):
        world.run(feed())
    stream.delete("db.shop.sales")
    stream.create("db.shop.sales", partitions=1)
    with pytest.raises(Conflict, match="--restart"):
        world.run(feed())
    assert world.run(feed(), restart=True).read == 0
    stream.close()
