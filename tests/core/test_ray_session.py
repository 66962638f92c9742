from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headway.core.errors import InvalidValue, ServiceFailed
from headway.core.platform_state import BLOCK_SIZE, BLOCK_WORKERS, PORT_NAMES, PlatformState
from headway.core.ray_session import (
    BACKGROUND_NICENESS,
    NICENESS,
    connect,
    driver_env,
    run_in_background,
    session_env,
    token_path,
)
from headway.core.settings import Settings

PORTS = {name: 20_000 + index for index, name in enumerate(PORT_NAMES)}


@pytest.fixture
def state(settings: Settings) -> PlatformState:
    settings.home.mkdir(parents=True)
    return PlatformState(home=str(settings.home), ports=PORTS, ray_temp="/run/hw/abc")


def test_every_serve_name_exists_in_the_installed_serve(settings: Settings, state: PlatformState) -> None:
    from ray.serve._private import constants

    source = inspect.getsource(constants)
    names = [name for name in session_env(settings, state) if name.startswith("RAY_SERVE_")]
    assert len(names) > 10
    assert [name for name in names if f'"{name}"' not in source] == []


def test_replicas_listen_inside_the_homes_own_block(settings: Settings, state: PlatformState) -> None:
    environment = session_env(settings, state)
    first = PORTS["block"]
    for kind in ("HTTP", "GRPC"):
        low = int(environment[f"RAY_SERVE_DIRECT_INGRESS_MIN_{kind}_PORT"])
        high = int(environment[f"RAY_SERVE_DIRECT_INGRESS_MAX_{kind}_PORT"])
        assert first + BLOCK_WORKERS <= low < high < first + BLOCK_SIZE


def test_haproxy_sockets_fit_into_a_unix_address(settings: Settings, state: PlatformState) -> None:
    socket = Path(session_env(settings, state)["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    longest = socket.parent.as_posix().replace("/run/hw/abc", "/tmp/hw-4294967295/01234567")
    assert len(f"{longest}/{'f' * 56}/{socket.name}.4194304.tmp") <= 107


def test_workers_find_definitions_and_state(
    settings: Settings, state: PlatformState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/other")
    environment = session_env(settings, state)
    assert environment["PYTHONPATH"].split(":") == [str(settings.project), "/other"]
    assert environment["HEADWAY_HOME"] == str(settings.home)
    assert environment["HEADWAY_PROJECT"] == str(settings.project)
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(token_path(settings.home))


def test_drivers_and_head_agree(settings: Settings, state: PlatformState) -> None:
    assert driver_env(settings, state).items() <= session_env(settings, state).items()


@pytest.mark.parametrize(("given", "niceness"), [({}, BACKGROUND_NICENESS), ({NICENESS: "0"}, 0), ({NICENESS: "3"}, 3)])
def test_background_work_is_as_nice_as_it_is_told_and_sinks_no_further(given: dict[str, str], niceness: int) -> None:
    script = (
        "import os; from headway.core.ray_session import run_in_background as run; "
        "before = os.nice(0); run(); run(); print(before, os.nice(0))"
    )
    inherited = {name: value for name, value in os.environ.items() if name != NICENESS}
    done = subprocess.run(
        [sys.executable, "-c", script], env=inherited | given, capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after == max(before, niceness)


def test_a_niceness_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NICENESS, "very")
    with pytest.raises(InvalidValue, match="'very' is no niceness") as refused:
        run_in_background()
    assert refused.value.field == NICENESS


def test_connecting_without_a_platform_says_to_start_one(settings: Settings) -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("this run's Ray session is already connected")
    with pytest.raises(ServiceFailed, match="not up"):
        connect(settings)
