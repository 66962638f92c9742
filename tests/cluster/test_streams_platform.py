"""Streams on the real platform: an actor killed at work, a stop of the platform, and every event once in its effect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from features.fraud import transactions
from headway.cluster import streams
from headway.cluster.local.lifecycle import down, up
from headway.core.clock import SystemClock
from headway.core.progress import RecordedProgress
from headway.core.settings import load_settings
from headway.core.types import Principal
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from tests.conftest import ROOT

# drivers of their own processes: this one may hold the run's Ray session
WORK = """
import contextlib, json, os, signal, sys, time
import msgspec, psutil
from features.fraud import card_activity
from features.simulators import fraud
from headway.client import EventClient
from headway.cluster import stream_status, streams
from headway.cluster.applications import base_url
from headway.cluster.compose import Installation
from headway.cluster.local.process import ours
from headway.cluster.local.tokens import request_token
from headway.core.platform_state import read_state
from headway.core.progress import RecordedProgress
from headway.features.streams.group import HeadwayStream
from headway.features.windows.codec import prefix, unpack

at = Installation.running(writer="test", home=sys.argv[1], project=sys.argv[2])
ann = at.login("ann", "platform_operations")
rows = dict(fraud.tables(3, days=2))["transactions"]
rows = rows.slice(0, 6_000).to_pylist()

def publish(part):
    topic = at.stream.topic("transactions")
    at.stream.publish(topic, [(str(row["customer_id"]).encode(), msgspec.json.encode(row)) for row in part])

def readable(count):
    deadline = time.monotonic() + 90
    while True:
        (now,) = stream_status.status(at, ann, ["transactions"])
        if now.state == "running" and sum(part.progress.position for part in now.partitions) == count:
            return now
        assert time.monotonic() < deadline, now
        time.sleep(0.1)

def actor():
    found = []
    for process in ours(at.settings.home, read_state(at.settings.home).services.values()):
        with contextlib.suppress(psutil.Error):
            if f"ray::{HeadwayStream.__name__}" in " ".join(process.cmdline()):
                found.append(process.pid)
    assert len(found) == 1, found
    return found[0]

streams.run(at, ann, RecordedProgress(), ["transactions"], partitions=2)
publish(rows[:2_000])
killed = []
for end in (3_000, 4_000):
    killed.append(actor())
    os.kill(killed[-1], signal.SIGKILL)
    publish(rows[end - 1_000:end])
    seen = readable(end)
assert actor() not in killed
keys = sorted({row["customer_id"] for row in rows})
stored = at.online._client.mget([prefix(card_activity) + str(key).encode() for key in keys])
events, _ = unpack(card_activity, stored)
publish(rows[4_000:5_000])
token = request_token(at.settings, sub="till", kind="workload", scopes=["ingest:transactions"], purpose="sales")
with EventClient(base_url(at), token=token) as client:
    client.post("transactions", rows[5_000:5_500])
with EventClient.from_ray(token=token) as client:
    client.post("transactions", rows[5_500:])
readable(6_000)
print("answer", json.dumps({
    "online": sorted(events.records[:, 2].tolist()),
    "first": sorted(row["transaction_id"] for row in rows[:4_000]),
    "all": sorted(row["transaction_id"] for row in rows),
    "epochs": [part.progress.epoch for part in seen.partitions],
    "states": [part.state for part in seen.partitions],
}))
"""
SETTLE = """
import sys
from headway.cluster.streams import settle
from headway.core.platform_state import resolved_settings
from headway.core.progress import RecordedProgress
progress = RecordedProgress()
settle(resolved_settings(home=sys.argv[1], project=sys.argv[2]), progress)
print("answer", progress.stages[0].notes)
"""


def driver(script: str, home: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-c", script, str(home), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    # Ray's own lines stand around it
    return next(line for line in run.stdout.splitlines() if line.startswith("answer ")).removeprefix("answer ")


@pytest.mark.platform
@pytest.mark.soak
@pytest.mark.timeout(600)
def test_kills_and_a_stop_of_the_platform_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", project=ROOT)
    try:
        up(settings)
        seen = json.loads(driver(WORK, settings.home))
        assert seen["online"] == seen["first"]
        assert seen["epochs"] == [3, 3]
        assert seen["states"] == ["running"] * 2
        assert "transactions" in driver(SETTLE, settings.home)
    finally:
        down(settings)
    streams.settle(settings, RecordedProgress())  # nothing runs any more, and that is no error
    clock = SystemClock()
    analyst = Principal(sub="ann", kind="human", scopes=frozenset({"data:read"}), purpose="monitoring", expires=2**62)
    reader = LakeReader(Location.of(settings), MemoryAudit(clock), clock)
    kept = reader.scan(transactions, analyst, "monitoring")["transaction_id"].to_pylist()
    assert sorted(kept) == seen["all"]
