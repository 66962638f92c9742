"""Faults of what a replica needs, and what callers may do to it: servers, disk, clock, bodies, connections."""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

import pytest

from headway.core.times import HOUR
from headway.serving.gateway import BODY_LIMIT, BODY_S
from tests.faults.scorecard import Record, record_served
from tests.faults.served import BUDGET_S, Served, SlowWay, answer, body, servers, wait_s
from tests.features.lake.troubles import filled
from tests.features.valkey import Valkey, serving
from tests.serving.callers import Callers
from tests.serving.staging import until

pytestmark = pytest.mark.slow
_FAULTS = ["is killed", pytest.param("stands still", marks=pytest.mark.soak)]
_MIB = 1 << 20


def _p99(callers: Callers, since: float, until_: float) -> float:
    """Return the 99th percentile of the answers asked for in an interval."""
    seconds = sorted(got.seconds for got in callers.got if since <= got.at < until_)
    return seconds[int(len(seconds) * 0.99)]


@pytest.mark.parametrize("fault", _FAULTS)
def test_the_feature_store(fault: str, record_property: Record) -> None:
    with servers() as served:
        with served.callers() as callers:
            began = wait_s(1.0)
            (served.features.kill if fault == "is killed" else served.features.freeze)()
            back = wait_s(4.0)
            if fault == "is killed":
                served.features.start()
                served.fill()
            else:
                served.features.thaw()
            until(served.whole)
            wait_s(1.0)
        during = [got for got in callers.got if began + 1 < got.at < back - 1]
        assert {one["arm"] for got in during for one in got.decisions} == {"rules"}
        waited = sum(got.seconds > BUDGET_S for got in during)
        record_served(
            record_property, fault=f"the feature store {fault}",
            done=f"for 4 s: the rules answer, p99 {_p99(callers, began, back) * 1e3:.0f} ms; {waited} of "
            f"{len(during)} waited its {BUDGET_S * 1e3:.0f} ms",
            sent=len(callers.got), failed=len(callers.failed), degraded=callers.degraded,
            seconds=callers.whole_again(back), within_s=5.0,
        )  # fmt: skip


@pytest.mark.soak
def test_the_feature_store_is_slow(record_property: Record) -> None:
    with serving() as store, SlowWay(store.url) as way, servers(features_url=way.url) as served:
        _follow(served, store)
        with served.callers() as callers:
            began = wait_s(1.0)
            way.delay_s = 0.5
            back = wait_s(4.0)
            way.delay_s = 0.0
            until(served.whole)
            wait_s(1.0)
        p99 = _p99(callers, began, back)
        record_served(
            record_property, fault="the feature store is slow",
            done=f"every reply takes 500 ms longer for 4 s; budget {BUDGET_S * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms",
            sent=len(callers.got), failed=len(callers.failed), degraded=callers.degraded,
            seconds=callers.whole_again(back), within_s=5.0,
        )  # fmt: skip


def _follow(served: Served, store: Valkey) -> None:
    """Fill the store behind the slow way in place of the one of `servers`."""
    served.features, kept = store, served.features
    served.fill()
    kept.kill()


def test_poison_rows_in_batches(record_property: Record) -> None:
    """One amount breaks the model, one makes it answer NaN: only who asks about them gets the rules."""
    with servers() as served:
        with served.callers(400.0, amounts=(20.0, 30.0, 666.0, 40.0, 13.0)) as callers:
            wait_s(4.0)
        arms = [one["arm"] for got in callers.got for one in got.decisions]
        poison = sum(got.degraded for got in callers.got)
        assert abs(poison - 0.4 * len(arms)) < 3
        assert b"NaN" not in b"".join(got.body for got in callers.got)
        record_served(
            record_property, fault="poison rows in batches",
            done="two amounts of five break the model or make it answer NaN; only these get the rules",
            sent=len(callers.got), failed=len(callers.failed), degraded=callers.degraded,
        )  # fmt: skip


def test_bodies_without_end(record_property: Record) -> None:
    """100 MB with and without a length: refused before they are kept, while others are answered."""
    with servers() as served:
        served.raw(body(1.0))
        before, most, statuses = served.memory, 0, []
        with served.callers(50.0) as callers:
            for _ in range(4):
                with served.connect() as connection:
                    connection.sendall(served.head(f"content-length: {100 * _MIB}") + b" " * 4_096)
                    statuses.append(answer(connection)[0])
            for _ in range(4):
                with served.connect() as connection:
                    connection.sendall(served.head("transfer-encoding: chunked"))
                    with suppress(ConnectionError):
                        for _ in range(100):
                            connection.sendall(b"100000\r\n" + b" " * _MIB + b"\r\n")
                            most = max(most, served.memory)
                    statuses.append(answer(connection)[0])
        # a caller who goes on sending for longer than anybody listens may lose the answer in the reset
        assert set(statuses) <= {413, 0}
        assert set(statuses[:4]) == {413}
        grown = max(most, served.memory) - before
        assert grown < 8 * BODY_LIMIT + 16 * _MIB
        record_served(
            record_property, fault="bodies without end",
            done=f"four of 100 MB with a length, four chunked: 413; memory grew by {grown / _MIB:.0f} MiB",
            sent=len(callers.got) + len(statuses), failed=len(callers.failed), degraded=callers.degraded,
        )  # fmt: skip


_ROW = '{"customer_id": 1, "shop": "a", "amount": %s}'
_BAD = [
    (b'{"rows":', {400}),
    (b"", {400}),
    (b"\xff\xfe\x00", {400}),
    (b"null", {400, 422}),
    (b"[]", {400, 422}),
    (b"[" * 100_000, {400, 422}),
    (b'{"rows": ' + b'[{"a":' * 50_000, {400, 422}),
    (b'{"rows": [], "rows": []}', {400, 422}),
    (b'{"rows": [{"customer_id": 1, "customer_id": 2, "shop": "a", "amount": 1}]}', {400, 422}),
    *((b'{"rows": [%s]}' % (_ROW % value).encode(), {400, 422}) for value in (
        "NaN", "Infinity", "-Infinity", "1e308", "1e400", '"1"', "null", "true", "[1]", "{}",
    )),
    (b'{"rows": [{"customer_id": 1e30, "shop": "a", "amount": 1}]}', {400, 422}),
    (b'{"rows": [{"customer_id": 1.5, "shop": "a", "amount": 1}]}', {400, 422}),
    (b'{"rows": [{"customer_id": 9223372036854775808, "shop": "a", "amount": 1}]}', {400, 422}),
    (b'{"rows": [{"customer_id": 1, "shop": 7, "amount": 1}]}', {400, 422}),
    (b'{"rows": [{"customer_id": 1, "shop": "a"}]}', {422}),
    (b'{"rows": [{"customer_id": 1, "shop": "a", "amount": 1, "more": 1}]}', {400, 422}),
    (b'{"rows": [1]}', {400, 422}),
    (b'{"rows": 1}', {400, 422}),
]  # fmt: skip


def test_bad_json(record_property: Record) -> None:
    wrong, named = [], 0
    with servers() as served:
        with served.callers(50.0) as callers:
            for data, expected in _BAD:
                for path in ("/v1/decisions", "/v2/models/toy/infer", "/invocations", "/v1/outcomes"):
                    status, headers, said = served.raw(data, path)
                    known = expected if path == "/v1/decisions" else {400, 422}
                    sound = not any(sign in said for sign in (b"Traceback", b"NaN", b".py", b"Error("))
                    if status not in known or not sound or "x-request-id" not in headers:
                        wrong.append((path, data[:60], status, said[:200]))
                    named += "field" in json.loads(said)
        assert wrong == []
        record_served(
            record_property, fault="bad JSON",
            done=f"{len(_BAD)} bodies on four paths (malformed, deep, duplicate keys, NaN, infinite, too large, other "
            f"types): 400 or 422, {named} name the field", sent=len(callers.got) + 4 * len(_BAD),
            failed=len(callers.failed) + len(wrong), degraded=callers.degraded,
        )  # fmt: skip


@pytest.mark.soak
def test_slow_clients(record_property: Record) -> None:
    """Bodies that come byte by byte are given up after ten seconds; the others do not notice."""
    with servers() as served:
        slow = [served.connect() for _ in range(200)]
        began = time.monotonic()
        for connection in slow:
            connection.sendall(served.head("content-length: 1000"))
        with served.callers(50.0) as callers:
            while time.monotonic() < began + BODY_S - 1:
                for connection in slow:
                    connection.sendall(b" ")
                time.sleep(1.0)
            statuses = [answer(connection)[0] for connection in slow]
        for connection in slow:
            connection.close()
        assert set(statuses) == {408}
        record_served(
            record_property, fault="slow clients", done="200 connections send a byte a second: 408 after ten seconds",
            sent=len(callers.got) + len(slow), failed=len(callers.failed), degraded=callers.degraded,
        )  # fmt: skip


def test_clients_that_go_away(record_property: Record) -> None:
    """Closed or reset with a request half sent, just sent, or under way: nothing is left waiting."""
    with servers() as served:
        request = served.head(f"content-length: {len(body(20.0))}") + body(20.0)
        gone = 0
        with served.callers(50.0) as callers:
            for reset in (False, True):
                for cut in (40, len(request) - 5, len(request)):
                    for _ in range(100):
                        connection = served.connect()
                        if reset:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        connection.sendall(request[:cut])
                        connection.close()
                        gone += 1
            wait_s(1.0)
        record_served(
            record_property, fault="clients that go away",
            done="600 connections closed or reset with a request half sent, or sent and not answered",
            sent=len(callers.got) + gone, failed=len(callers.failed), degraded=callers.degraded,
        )  # fmt: skip


@pytest.mark.parametrize("fault", _FAULTS)
def test_the_control_store(fault: str, record_property: Record) -> None:
    """Decisions go on; outcomes are refused with a time to come back, and taken then."""
    with servers() as served:
        with served.callers() as callers:
            until(lambda: any(got.status == 200 for got in callers.got))
            made = next(got.decisions[0]["decision_id"] for got in callers.got if got.status == 200)
            outcome = {"decision_id": made, "label": 1, "event_time": 1_700_000_000_000_000}
            outcomes = json.dumps({"outcomes": [outcome]})
            (served.control.kill if fault == "is killed" else served.control.freeze)()
            posts = Callers(f"{served.url}/v1/outcomes", [outcomes.encode()], "alice", rate=10.0)
            with posts:
                wait_s(2.0)
            (served.control.start if fault == "is killed" else served.control.thaw)()
            back = time.monotonic()
            until(lambda: served.raw(outcomes.encode(), "/v1/outcomes")[0] == 200)
            seconds = time.monotonic() - back
            wait_s(1.0)
        assert {got.status for got in posts.got} == {503}, "refused, and nobody waits for ever"
        assert all(int(got.headers["retry-after"]) >= 1 for got in posts.got)
        longest = max(got.seconds for got in posts.got)
        record_served(
            record_property, fault=f"the control store {fault}",
            done=f"decisions go on; {len(posts.got)} posts of outcomes got 503 with Retry-After, the last after "
            f"{longest:.1f} s", sent=len(callers.got) + len(posts.got), failed=len(callers.failed),
            degraded=callers.degraded, seconds=seconds, within_s=5.0,
        )  # fmt: skip


@pytest.mark.soak
def test_the_disk_of_a_durable_log_is_full(small: Path, record_property: Record) -> None:
    with servers(home=small / "home", durable=True, full_rows=200) as served:
        with served.callers() as callers:
            wait_s(1.0)
            with filled(small):
                until(lambda: any(got.status == 503 for got in callers.got))
                wait_s(2.0)
            back = time.monotonic()
            until(served.whole)
            wait_s(1.0)
        refused = [got for got in callers.got if got.status == 503]
        assert all(int(got.headers["retry-after"]) >= 1 for got in refused)
        assert len(refused) == len(callers.failed)
        record_served(
            record_property, fault="disk full under a durable decision log",
            done=f"room for 200 rows in memory, then {len(refused)} requests got 503 with Retry-After: none is "
            "answered that could not be logged", sent=len(callers.got), failed=len(refused), allowed=len(refused),
            degraded=callers.degraded, seconds=callers.whole_again(back), within_s=5.0,
        )  # fmt: skip


def test_the_disk_of_a_lossy_log_is_full(small: Path, record_property: Record) -> None:
    with servers(home=small / "home", durable=False, full_rows=200) as served:
        with served.callers() as callers, filled(small):
            until(lambda: bool(served.shared.dropped.value))
            wait_s(1.0)
        dropped = served.shared.dropped.value
        record_served(
            record_property, fault="disk full under a lossy decision log",
            done=f"every request is answered; {dropped} rows are counted as dropped", sent=len(callers.got),
            failed=len(callers.failed), degraded=callers.degraded,
        )  # fmt: skip


def test_the_clock_jumps(record_property: Record) -> None:
    with servers() as served:
        with served.callers() as callers:
            wait_s(1.0)
            for jump in (2 * HOUR, -2 * HOUR):
                served.shared.shift.value = jump
                wait_s(1.0)
            served.shared.shift.value = 0
            back = wait_s(0.0)
            until(served.whole)
            wait_s(1.0)
        ids = [one["decision_id"] for got in callers.got for one in got.decisions]
        assert len(set(ids)) == len(ids)
        record_served(
            record_property, fault="the clock jumps",
            done="two hours ahead (features are stale, and marked), then two behind: every decision has its own id",
            sent=len(callers.got), failed=len(callers.failed), degraded=callers.degraded,
            seconds=callers.whole_again(back), within_s=5.0,
        )  # fmt: skip
