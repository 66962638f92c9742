from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from headway.core.errors import CorruptState, ServiceFailed
from headway.core.platform_state import (
    PORT_NAMES,
    PlatformState,
    ServiceState,
    read_state,
    resolved_settings,
    running_settings,
    state_path,
    write_state,
)

PORTS = {name: 20_000 + index for index, name in enumerate(PORT_NAMES)}


def state_of(home: Path, **changes: object) -> PlatformState:
    home.mkdir(parents=True, exist_ok=True)
    fields: dict[str, object] = {"home": str(home), "ports": PORTS, "ray_temp": "/somewhere", **changes}
    return PlatformState(**fields)  # type: ignore[arg-type]  # fields are checked by the struct's users


def test_a_state_survives_the_disk_and_is_private(tmp_path: Path) -> None:
    service = ServiceState(pid=7, started=1.5, log="x.log")
    written = state_of(tmp_path / "home", services={"ray": service})
    write_state(written)
    assert read_state(tmp_path / "home") == written
    assert stat.S_IMODE(state_path(tmp_path / "home").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["platform.json"]


def test_nothing_started_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"home": "x"}',
        b'{"home": 1, "ports": {}, "ray_temp": ""}',
        b'{"home": "x", "ports": {"http": "8000"}, "ray_temp": ""}',
    ],
)
def test_a_corrupt_state_is_kept_and_says_the_way_out(tmp_path: Path, content: bytes) -> None:
    state_path(tmp_path).write_bytes(content)
    with pytest.raises(CorruptState, match=r"platform\.json") as caught:
        read_state(tmp_path)
    assert "headway down --force" in (caught.value.hint or "")
    assert state_path(tmp_path).read_bytes() == content


def test_the_state_of_a_copied_folder_is_refused(tmp_path: Path) -> None:
    write_state(state_of(tmp_path / "original"))
    copy = tmp_path / "copy"
    copy.mkdir()
    state_path(copy).write_bytes(state_path(tmp_path / "original").read_bytes())
    with pytest.raises(CorruptState, match="belongs to"):
        read_state(copy)


def test_a_state_without_a_port_or_of_another_format_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_state(state_of(home, ports={"http": 8000}))
    with pytest.raises(CorruptState, match="lacks ports"):
        read_state(home)
    write_state(state_of(home, format=99))
    with pytest.raises(CorruptState, match="format 99"):
        read_state(home)


def test_empty_addresses_are_filled_and_given_ones_stay(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_state(state_of(home))
    found = resolved_settings(home=home, redis_control_url="redis://elsewhere:1/0")
    assert found.redis_features_url == "unix:///somewhere/features.sock"
    assert found.stream_url == f"redis://127.0.0.1:{PORTS['redis-stream']}/0"
    assert found.redis_control_url == "redis://elsewhere:1/0"
    assert found.mlflow_uri == f"http://127.0.0.1:{PORTS['mlflow']}"
    assert found.http_port == PORTS["http"]
    assert found.catalog_uri == f"sqlite:///{home}/lake/catalog.db"
    assert found.warehouse == f"file://{home}/lake/warehouse"


def test_running_settings_need_a_platform_or_addresses(tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match="not up") as caught:
        running_settings(home=tmp_path)
    assert caught.value.hint == "headway up"
    given = {"redis_features_url": "redis://a", "redis_control_url": "redis://b", "mlflow_uri": "http://c"}
    assert running_settings(home=tmp_path, **given).redis_features_url == "redis://a"


def test_the_file_is_json_for_people(tmp_path: Path) -> None:
    write_state(state_of(tmp_path / "home"))
    text = state_path(tmp_path / "home").read_text()
    assert json.loads(text)["ports"] == PORTS
    assert text.count("\n") > len(PORTS)
