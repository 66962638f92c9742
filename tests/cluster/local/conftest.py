"""A platform of three light services, so that the life cycle is tested in seconds; one test starts the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from headway.cluster.local import lifecycle, starting, status
from headway.cluster.local import ports as port_book
from headway.cluster.local.service import Context, Service
from headway.cluster.local.services.redis import RedisService
from headway.core.settings import Settings, load_settings

ROOT_OF_TESTS = Path(__file__).resolve().parents[3]


class NoIngress:
    """In place of Serve: always there."""

    start_timeout_s = 1.0

    def healthy(self, context: Context) -> bool:
        return True


def light_services() -> tuple[Service, ...]:
    return (
        RedisService(name="redis-features", durable=False),
        RedisService(name="redis-control", durable=True),
        RedisService(name="redis-stream", durable=True),
    )


def use_light_services(patch: pytest.MonkeyPatch) -> None:
    for module in (lifecycle, starting, status):
        patch.setattr(module, "services", light_services)
    for module in (starting, status):
        patch.setattr(module, "ServeIngress", NoIngress)


def left(ports: Iterable[int]) -> list[int]:
    """Return the ports somebody still listens on, less those another platform has claimed since."""
    with port_book._locked():
        busy = port_book.busy(ports)
        others = {port for item in port_book._reservations() for port in item.ports.values()}
        return [port for port in busy if port not in others]


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, but not for ever."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a home whose platform is three Redis servers; stopped at the end whatever happened."""
    use_light_services(monkeypatch)
    project = tmp_path / "project"
    project.mkdir()
    settings = load_settings(home=tmp_path / "home", project=project)
    try:
        yield settings
    finally:
        lifecycle.down(settings, force=True)
