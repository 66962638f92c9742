from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headway.core.errors import Conflict, CorruptState, InvalidValue, Unavailable
from headway.core.times import DAY
from headway.features.aggregates import count, mean
from headway.features.definitions import Entity, EventSource, FeatureService, Overflow, WindowView
from headway.features.online import OnlineReader, OnlineRows
from headway.features.online_store import OnlineStore
from headway.features.status import SLACK, Status
from headway.features.windows import codec
from headway.features.windows.scan import NEVER
from tests.features.oracle import Event, a_view, endless_view, feature
from tests.features.samples import read, table
from tests.features.windows.test_columns import histories

VIEWS = (a_view(), endless_view(5))
SERVICE = FeatureService(name="s", views=VIEWS, request={"amount": "float32"})


@given(histories(), st.integers(1, 5), st.randoms(use_true_random=False))
@example([Event(0, 5, 6, 1, 7), Event(0, 5, 6, 1, -3)], 1, random.Random(1))
@example([Event(0, 5, 6, 1, 3), Event(0, 5, 6, 1, 2)], 2, random.Random(1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_writes_in_any_order_and_number_read_like_the_oracle(
    redis_url: str, history: list[Event], writes: int, order: random.Random
) -> None:
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    client.close()
    store = OnlineStore(redis_url)
    late = [*history, *history[: len(history) // 2]]
    order.shuffle(late)
    for part in range(writes):
        for view in VIEWS:
            store.write(view, table(late[part::writes]))
    store.close()
    rows = [(key, at) for key in range(5) for at in (30, 90, 200)]
    last_known = max([e.known_time for e in history], default=0)
    found = read(SERVICE, redis_url, [k for k, _ in rows], [t for _, t in rows])
    for view in VIEWS:
        for name, a in zip(view.features, view.aggregates, strict=True):
            for i, (key, at) in enumerate(rows):
                if view.max_events == 5 and at < last_known:
                    continue  # a live read is never older than what was written; the cap forgets what that needs
                expected = feature(view, a, history, key, at, True)
                assert found.columns[name][i : i + 1].tobytes() == np.float32(expected).tobytes(), (name, key, at)


def test_null_and_unknown_keys_keep_their_row(online_url: str) -> None:
    OnlineStore(online_url).write(a_view(), table([Event(1, 10, 10, 1, 100)]))
    found = read(SERVICE, online_url, [1, None, 2, 1], [15, 15, 15, 500])
    assert found.status["activity"].tolist() == [Status.PRESENT, Status.MISSING, Status.MISSING, Status.EXPIRED]
    assert found.columns["activity__count_10us"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_the_watermark_never_goes_back(online_url: str) -> None:
    store = OnlineStore(online_url)
    assert store.watermark(a_view()) == 0
    store.set_watermark(a_view(), 1_700_000_000_000_001)
    store.set_watermark(a_view(), 5)
    assert store.watermark(a_view()) == 1_700_000_000_000_001
    assert read(SERVICE, online_url, [1], [1]).watermark == {"activity": 1_700_000_000_000_001, "ever": 0}


def test_two_writers_never_lose_an_event(online_url: str) -> None:
    def write(first: int) -> None:
        store = OnlineStore(online_url)
        for i in range(first, first + 40):
            store.write(a_view(), table([Event(key, i, i, i, 1) for key in range(3)]))
        store.close()

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = redis.Redis.from_url(online_url)
    events, sequences = codec.unpack(a_view(), [client.get(codec.prefix(a_view()) + b"1")])
    client.close()
    assert len(events.event_time) == 120
    assert sequences == [120]


def test_what_no_window_reaches_is_pruned_and_reads_say_so(online_url: str) -> None:
    history = [Event(1, day * DAY, day * DAY, day, 1) for day in range(10)]
    report = OnlineStore(online_url).write(a_view(), table(history))
    assert report.pruned == 9 - SLACK // DAY
    early = read(SERVICE, online_url, [1, 1], [3 * DAY, 9 * DAY])
    assert early.status["activity"].tolist() == [Status.TRUNCATED, Status.PRESENT]


def test_overflow(online_url: str) -> None:
    history = [Event(1, i, i, i, 1) for i in range(40)]
    store = OnlineStore(online_url)
    assert store.write(a_view(max_events=8), table(history)).overflowed == 40 - 8 - 1 - 8
    strict = WindowView(**{**a_view().__dict__, "name": "strict", "overflow": Overflow.REJECT, "max_events": 8})
    with pytest.raises(InvalidValue, match="1 has more than 8 events"):
        store.write(strict, table(history))


def test_string_keys_and_ids(online_url: str) -> None:
    source = EventSource(
        name="visits", columns={"visit": "string", "user": "string", "pages": "int64"}, id="visit", bucket_by="user"
    )
    view = WindowView(
        name="visits",
        entity=Entity(name="user", key="user", dtype="string"),
        source=source,
        aggregates=(*count("10us"), *mean("pages", "10us")),
        max_events=10,
    )
    rows = pa.table({"visit": ["a", "b", "b"], "user": ["ü", "ü", "ü"], "pages": [1, 4, 4], "event_time": [1, 2, 2]})
    OnlineStore(online_url).write(view, rows)

    async def go() -> OnlineRows:
        reader = OnlineReader(FeatureService(name="v", views=(view,), request={}), online_url)
        found = await reader.read({"user": np.array(["ü", "x"], object)}, np.array([5, 5]))
        await reader.close()
        return found

    assert asyncio.run(go()).columns["visits__pages_mean_10us"].tolist()[0] == 2.5


def test_foreign_bytes_are_reported_not_deleted(online_url: str) -> None:
    client = redis.Redis.from_url(online_url)
    name = codec.prefix(a_view()) + b"1"
    for wrong in (b"x", codec.pack(1, NEVER, b"\0" * 32)[:-1], codec.pack(1, NEVER, b"\0" * 32)[:-1] + b"\1"):
        client.set(name, wrong)
        with pytest.raises(CorruptState, match="materialize"):
            read(SERVICE, online_url, [1], [1])
        with pytest.raises(CorruptState):
            OnlineStore(online_url).write(a_view(), table([Event(1, 1, 1, 1, 1)]))
        assert client.get(name) == wrong
    client.close()


def test_a_missing_key_column_is_named(online_url: str) -> None:
    async def go() -> None:
        reader = OnlineReader(SERVICE, online_url)
        with pytest.raises(InvalidValue, match="card"):
            await reader.read({}, np.array([1]))
        await reader.close()

    asyncio.run(go())


def test_an_absent_server_is_unavailable_and_a_restarted_one_is_found(online_url: str, tmp_path: Path) -> None:
    async def go() -> None:
        gone = OnlineReader(SERVICE, f"unix://{tmp_path}/nothing")
        with pytest.raises(Unavailable):
            await gone.read({"card": np.array([1])}, np.array([1]))
        reader = OnlineReader(SERVICE, online_url)
        await reader.read({"card": np.array([1])}, np.array([1]))
        client = redis.Redis.from_url(online_url)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        client.close()
        await asyncio.sleep(0.05)
        await reader.read({"card": np.array([1])}, np.array([1]))
        await reader.close()

    asyncio.run(go())
    with pytest.raises(Unavailable):
        OnlineStore(f"unix://{tmp_path}/nothing").write(a_view(), table([Event(1, 1, 1, 1, 1)]))


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    async def go() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)
            writer.close()

        server = await asyncio.start_unix_server(silent, str(tmp_path / "s"))
        reader = OnlineReader(SERVICE, f"unix://{tmp_path}/s", timeout_s=0.05)
        calls = [reader.read({"card": np.array([1])}, np.array([1])) for _ in range(3)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, Unavailable) for error in found)
        await reader.close()
        server.close()
        await server.wait_closed()

    asyncio.run(go())


def test_many_concurrent_reads_share_one_connection(online_url: str) -> None:
    OnlineStore(online_url).write(a_view(), table([Event(k, 10, 10, k, k * 100) for k in range(50)]))

    async def go() -> list[float]:
        reader = OnlineReader(SERVICE, online_url)
        rows = await asyncio.gather(*(reader.read({"card": np.array([k])}, np.array([15])) for k in range(50)))
        await reader.close()
        return [float(row.columns["activity__amount_sum_10us"][0]) for row in rows]

    assert asyncio.run(go()) == list(range(50))


def test_endless_contention_is_a_conflict(online_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OnlineStore(online_url)
    monkeypatch.setattr(store._swap, "_script", lambda keys, args: list(range(1, len(keys) + 1)))
    with pytest.raises(Conflict):
        store.write(a_view(), table([Event(1, 1, 1, 1, 1)]))


def test_what_replicas_import_is_light() -> None:
    heavy = ("feast", "mlflow", "evidently", "pyiceberg", "ray", "pandas", "pyarrow", "xgboost", "redis")
    code = (
        "import sys, headway.features.online, headway.features.kernel, headway.features.profile;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
