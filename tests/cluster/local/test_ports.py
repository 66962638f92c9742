from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from headway.cluster.local import ports
from headway.cluster.local.ports import is_free, release
from headway.core.errors import ServiceFailed
from headway.core.platform_state import BLOCK_SIZE, PORT_NAMES, state_path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder and ports that no platform starts from: others run beside these tests."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(ports, "runtime_folder", lambda: folder)
    singles = [name for name in PORT_NAMES if name != "block"]
    own = {name: 24_000 + 20 * place for place, name in enumerate(singles)}
    monkeypatch.setattr(ports, "DEFAULTS", own | {"block": 26_000})
    return folder


def home(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    state_path(folder).touch()
    return folder


def reserve(home: Path, wanted: dict[str, int]) -> dict[str, int]:
    with ports.reserved(home, wanted) as chosen:
        return chosen


def test_all_ports_are_there_free_and_distinct(tmp_path: Path) -> None:
    chosen = reserve(home(tmp_path, "a"), {})
    assert set(chosen) == set(PORT_NAMES)
    singles = [port for name, port in chosen.items() if name != "block"]
    assert len(set(singles)) == len(singles)
    assert all(is_free(port) for port in singles)
    block = range(chosen["block"], chosen["block"] + BLOCK_SIZE)
    assert not set(singles) & set(block)


def test_two_homes_get_disjoint_ports_before_either_listens(tmp_path: Path) -> None:
    first, second = reserve(home(tmp_path, "a"), {}), reserve(home(tmp_path, "b"), {})
    assert not {v for k, v in first.items() if k != "block"} & {v for k, v in second.items() if k != "block"}
    assert abs(first["block"] - second["block"]) >= BLOCK_SIZE


def test_a_taken_port_is_passed_over(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert reserve(home(tmp_path, "a"), {"http": port})["http"] > port


def test_reservations_end_with_release_and_with_the_home(tmp_path: Path) -> None:
    a, b = home(tmp_path, "a"), home(tmp_path, "b")
    wanted = reserve(a, {})
    release(a)
    assert reserve(b, {}) == wanted
    state_path(b).unlink()
    assert reserve(home(tmp_path, "c"), {}) == wanted


def test_a_home_whose_state_is_not_written_yet_keeps_its_ports(tmp_path: Path) -> None:
    first = tmp_path / "a"
    first.mkdir()
    others: list[dict[str, int]] = []
    other = threading.Thread(target=lambda: others.append(reserve(home(tmp_path, "b"), {})))
    with ports.reserved(first, {}) as mine:
        other.start()
        other.join(0.3)
        state_path(first).touch()
    other.join(20)
    (theirs,) = others
    assert not {v for k, v in mine.items() if k != "block"} & {v for k, v in theirs.items() if k != "block"}
    assert reserve(home(tmp_path, "c"), {}) not in (mine, theirs)


def test_a_torn_reservation_is_no_obstacle(tmp_path: Path, own_folder: Path) -> None:
    (own_folder / "torn.json").write_bytes(b'{"home": "/x", "po')
    assert set(reserve(home(tmp_path, "a"), {})) == set(PORT_NAMES)


def test_no_port_left_is_an_error_that_names_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(ServiceFailed, match="redis-features"):
        reserve(home(tmp_path, "a"), {})


def test_a_runtime_folder_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_001)
    with pytest.raises(ServiceFailed, match="not a private folder"):
        ports.runtime_folder()
    Path("/tmp/hw-4000000001").rmdir()
