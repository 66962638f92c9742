from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load import post, whole, write_requests
from benchmarks.open_loop import arrivals
from benchmarks.serving.spike import client_rates, until_normal
from benchmarks.serving.sustained import holds
from benchmarks.traffic import LOST, UNANSWERED, Plan, Stream, Traffic, offer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SHED = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\ncontent-length: 0\r\n\r\n"
QUOTA = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def server(answer: Callable[[int], bytes | None]) -> Iterator[int]:
    """Answer the n-th request on any connection; None hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    lock, count = threading.Lock(), [0]

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65_536):
                with lock:
                    index, count[0] = count[0], count[0] + 1
                    said = answer(index)  # one at a time: a slow answer makes everybody wait
                if said is None:
                    return
                connection.sendall(said)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@pytest.fixture
def requests(tmp_path: Path) -> str:
    write_requests(tmp_path / "requests.bin", [post("/", b"{}")])
    return str(tmp_path / "requests.bin")


def plan(port: int, requests: str, *, rate: float = 100.0, seconds: float = 0.5, patience_s: float = 2.0) -> Plan:
    stream = Stream(requests=requests, rate=rate, start=0.0, end=seconds)
    return Plan(port=port, streams=[stream], connections=4, patience_s=patience_s)


def test_what_waits_for_a_stalled_server_is_counted_from_its_schedule(requests: str, tmp_path: Path) -> None:
    def stalled(index: int) -> bytes:
        if index == 10:
            time.sleep(0.4)
        return OK

    with server(stalled) as port:
        traffic = offer("test", plan(port, requests, seconds=1.0), tmp_path)
    assert traffic.failed == 0
    # a closed loop of 4 connections would have seen 4 slow answers; 100/s for 0.4 s makes about 40
    assert (traffic.latency > 50).sum() > 15
    assert traffic.quantile(1.0) > 390


def test_statuses_retries_and_lost_connections_are_told_apart(requests: str, tmp_path: Path) -> None:
    answers = [OK, SHED, QUOTA, None]
    with server(lambda index: answers[index % 4]) as port:
        traffic = offer("test", plan(port, requests), tmp_path)
    assert set(traffic.status.tolist()) == {200, 503, 429, LOST}
    assert traffic.retry_after[traffic.status == 503].all()
    assert not traffic.retry_after[traffic.status == 429].any()
    assert traffic.failed == (traffic.status != 200).sum()


def test_a_server_that_never_answers_is_told(requests: str, tmp_path: Path) -> None:
    with server(lambda _: b"") as port:
        traffic = offer("test", plan(port, requests, patience_s=0.3), tmp_path)
    assert set(traffic.status.tolist()) == {UNANSWERED}
    assert traffic.achieved == 0.0
    assert not holds(traffic)


def test_arrivals_are_in_order_and_of_their_streams() -> None:
    streams = [
        Stream(requests="a", rate=50.0, start=0.0, end=40.0),
        Stream(requests="b", rate=400.0, start=10.0, end=20.0),
    ]
    due, kind = arrivals(Plan(port=1, streams=streams))
    assert (np.diff(due) >= 0).all()
    spike = due[kind == 1]
    assert spike.min() >= 10.0
    assert spike.max() <= 20.0
    assert len(spike) == pytest.approx(4_000, rel=0.1)
    gaps = np.diff(spike)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # exponential gaps: a Poisson process


def test_an_answer_is_whole_with_all_of_its_body() -> None:
    assert whole(OK) is not None
    assert whole(OK[:-1]) is None
    assert whole(OK[:20]) is None
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    assert whole(chunked) is not None
    assert whole(chunked[:-5]) is None


def traffic_of(latency: list[float], status: list[int] | None = None) -> Traffic:
    count = len(latency)
    return Traffic(
        due=np.arange(count) / 10.0,
        latency=np.array(latency),
        status=np.array(status or [200] * count, dtype=np.int16),
        retry_after=np.zeros(count, dtype=np.bool_),
        stream=np.zeros(count, dtype=np.int16),
        seconds=count / 10.0,
        cpu=0.1,
    )


def test_service_is_normal_after_the_last_bad_answer() -> None:
    assert until_normal(traffic_of([500.0] * 100 + [5.0] * 100), 10.0) == 0.0
    assert until_normal(traffic_of([500.0] * 120 + [5.0] * 80), 10.0) == pytest.approx(1.8)
    status = [503] * 130 + [200] * 70
    assert until_normal(traffic_of([5.0] * 200, status), 10.0) == pytest.approx(2.8)


def test_a_rate_holds_with_few_errors_and_no_backlog() -> None:
    assert holds(traffic_of([5.0] * 1_000))
    assert holds(traffic_of([5.0] * 1_000), 45.0)
    assert not holds(traffic_of([60.0] * 1_000), 45.0)
    assert not holds(traffic_of([5.0] * 1_000, [503] * 2 + [200] * 998))
    backlog = [5.0 * n for n in range(1_000)]  # later and later
    assert not holds(traffic_of(backlog))


def test_the_spike_is_split_among_clients_within_and_above_their_limit() -> None:
    rates = list(client_rates(4_950.0))
    assert sum(rates) == pytest.approx(4_950.0)
    assert min(rates) < 200 < max(rates)
