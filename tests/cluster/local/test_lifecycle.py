from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from headway.cluster.local import lifecycle
from headway.cluster.local.lifecycle import down, up
from headway.cluster.local.ports import is_free
from headway.cluster.local.process import ours
from headway.cluster.local.status import status
from headway.core.errors import CorruptState, ServiceFailed
from headway.core.platform_state import PlatformState, ServiceState, read_state, state_path, write_state
from headway.core.progress import RecordedProgress
from headway.core.settings import Settings, load_settings
from tests.cluster.local.conftest import ROOT_OF_TESTS, left, light_services

NAMES = ("redis-features", "redis-control", "redis-stream")


def own_ports(state: PlatformState) -> list[int]:
    return [state.ports[name] for name in NAMES]


def test_up_is_idempotent_and_down_leaves_nothing(light: Settings) -> None:
    progress = RecordedProgress()
    state = up(light, progress)
    assert {"Redis (features)", "Redis (control)", "Redis (stream)"} <= {stage.name for stage in progress.stages}
    assert status(light).state == "up"
    again = up(light)
    assert again == state
    assert {name: item.pid for name, item in again.services.items()} == {
        name: item.pid for name, item in state.services.items()
    }
    assert down(light) == len(NAMES)
    assert ours(light.home, state.services.values()) == []
    assert left(own_ports(state)) == []
    assert read_state(light.home) is None
    assert down(light) == 0
    assert status(light).state == "down"


def test_a_dead_service_is_repaired_on_its_port_and_the_others_stay(light: Settings) -> None:
    before = up(light)
    os.kill(before.services["redis-control"].pid, signal.SIGKILL)
    after = up(light)
    assert after.ports == before.ports
    assert after.services["redis-features"] == before.services["redis-features"]
    assert after.services["redis-control"].pid != before.services["redis-control"].pid


@pytest.mark.parametrize("name", ["redis-control", "redis-stream"])
def test_control_records_and_events_survive_a_kill(light: Settings, name: str) -> None:
    import redis

    state = up(light)
    client = redis.Redis(port=state.ports[name])
    client.set("kept", "1")
    client.close()
    os.kill(state.services[name].pid, signal.SIGKILL)
    up(light)
    client = redis.Redis(port=state.ports[name])
    assert client.get("kept") == b"1"
    client.close()


def test_a_hung_service_is_replaced(light: Settings) -> None:
    before = up(light)
    os.kill(before.services["redis-features"].pid, signal.SIGSTOP)
    rows = {row.name: row.state for row in status(light).services}
    assert rows["redis-features"] == "starting or hung"
    after = up(light)
    assert after.services["redis-features"].pid != before.services["redis-features"].pid


def test_up_that_was_killed_half_way_is_repaired_and_stopped(light: Settings) -> None:
    script = (
        "import sys, time\n"
        "import headway.cluster.local.lifecycle as lifecycle, headway.cluster.local.starting as starting\n"
        "from headway.core.settings import load_settings\n"
        "from tests.cluster.local.conftest import NoIngress, light_services\n"
        "lifecycle.services = starting.services = light_services\n"
        "starting.ServeIngress = NoIngress\n"
        "starting.Start._save = lambda self, recorded: time.sleep(60)\n"  # killed between start and record
        "lifecycle.up(load_settings(home=sys.argv[1], project=sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, str(light.home), str(light.project)]
    with subprocess.Popen(command, cwd=ROOT_OF_TESTS, env={**os.environ, "PYTHONPATH": str(ROOT_OF_TESTS)}) as starter:
        deadline = time.monotonic() + 120
        while not ours(light.home):  # whichever came first: the others wait behind it
            assert time.monotonic() < deadline
            assert starter.poll() is None
            time.sleep(0.05)
        starter.kill()
    assert read_state(light.home) is not None
    orphans = ours(light.home)
    assert orphans
    state = up(light)
    assert sorted(state.services) == sorted(NAMES)
    assert not {item.pid for item in orphans} & {item.pid for item in ours(light.home)}
    down(light)
    assert ours(light.home) == []


def test_orphans_without_any_state_are_stopped(light: Settings) -> None:
    up(light)
    state_path(light.home).unlink()
    assert status(light).state == "partial"
    assert down(light) == len(NAMES)
    assert ours(light.home) == []


def test_a_stale_state_of_a_reboot_starts_anew_and_spares_reused_pids(light: Settings) -> None:
    state = up(light)
    down(light)
    bystander = psutil.Process()
    stale = ServiceState(pid=bystander.pid, started=1.0, log="")
    write_state(
        PlatformState(home=state.home, ports=state.ports, ray_temp=state.ray_temp, services={"redis-features": stale})
    )
    fresh = up(light)
    assert fresh.services["redis-features"].pid != bystander.pid
    assert bystander.is_running()


def test_a_moved_wall_clock_changes_nothing(light: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = up(light)
    booted = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 3_600)
    assert status(light).state == "up"
    assert up(light) == before
    assert down(light) == len(NAMES)


def test_ports_are_not_given_to_another_home_before_the_state_is_written(
    light: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_settings(home=tmp_path / "second", project=light.project)
    light.home.mkdir()
    other.home.mkdir()
    states: list[PlatformState] = []

    def slowly(state: PlatformState) -> None:
        if state.home == str(light.home):
            racing.start()
            racing.join(0.5)
        write_state(state)

    racing = threading.Thread(target=lambda: states.append(lifecycle._claim(other)))
    monkeypatch.setattr(lifecycle, "write_state", slowly)
    try:
        states.append(lifecycle._claim(light))
        racing.join(20)
        first, second = states
        assert not set(own_ports(first)) & set(own_ports(second))
    finally:
        down(other)


def test_a_port_taken_since_is_another_port_after_down(light: Settings) -> None:
    wanted = up(light).ports["redis-features"]
    down(light)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another platform took it: that is as good
            taken.bind(("127.0.0.1", wanted))
            taken.listen()
        assert up(light).ports["redis-features"] != wanted


def test_a_port_taken_under_a_running_platform_is_reported(light: Settings) -> None:
    state = up(light)
    os.kill(state.services["redis-control"].pid, signal.SIGKILL)
    port = state.ports["redis-control"]
    while not is_free(port):
        time.sleep(0.02)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(ServiceFailed, match=f"redis-control {port}"):
            up(light)
    assert sorted(up(light).services) == sorted(NAMES)


def test_a_corrupt_state_is_an_error_and_force_sets_it_aside(light: Settings) -> None:
    up(light)
    state_path(light.home).write_text("{ not json")
    for act in (up, down, status):
        with pytest.raises(CorruptState, match="cannot be read"):
            act(light)
    assert state_path(light.home).read_text() == "{ not json"
    assert down(light, force=True) == len(NAMES)
    (aside,) = light.home.glob("platform.json.corrupt-*")
    assert aside.read_text() == "{ not json"
    assert ours(light.home) == []


def test_two_homes_do_not_touch_one_another(light: Settings, tmp_path: Path) -> None:
    other = load_settings(home=tmp_path / "second", project=light.project)
    try:
        first, second = up(light), up(other)
        assert not set(own_ports(first)) & set(own_ports(second))
        down(light)
        assert len(ours(other.home, second.services.values())) == len(light_services())
        assert status(other).processes == len(light_services())
    finally:
        down(other)


def test_a_service_that_ends_while_starting_is_reported_with_its_log(
    light: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headway.cluster.local.services.redis import RedisService

    command = (sys.executable, "-c", "import sys; sys.exit('no such luck')")
    monkeypatch.setattr(RedisService, "command", lambda self, context: command)
    with pytest.raises(ServiceFailed, match="no such luck") as caught:
        up(light)
    assert "logs" in (caught.value.hint or "")
    assert ours(light.home) == []
    assert read_state(light.home) is None


def test_a_service_that_never_answers_is_given_up(light: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.cluster.local.services.redis import RedisService

    monkeypatch.setattr(RedisService, "healthy", lambda self, context: False)
    monkeypatch.setattr(RedisService, "start_timeout_s", 0.5, raising=False)
    monkeypatch.setattr(
        "headway.cluster.local.starting.services",
        lambda: (RedisService(name="redis-features", durable=False, start_timeout_s=0.5),),
    )
    with pytest.raises(ServiceFailed, match="did not answer within"):
        up(light)
    assert ours(light.home) == []
