"""What is kept is used only as it was made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.times import DAY
from headway.training.stage_cache import ENTRY, StageCache

NOW = 1_700_000_000_000_000
INPUTS = {"seed": 7, "snapshots": {"events.visits": 12}}


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(root=tmp_path / "stages", clock=ManualClock(NOW))


def filled(text: bytes = b"abcdef") -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / "inner").mkdir()
        (folder / "inner" / "data").write_bytes(text)
        (folder / "facts").write_bytes(b"{}")
        return "two files"

    return make


def put(cache: StageCache, name: str, size: int = 6) -> Path:
    inputs = {"name": name}
    return cache.put("train", cache.key("train", inputs), inputs, filled(b"x" * size)).folder


def test_what_was_put_is_found(cache: StageCache) -> None:
    key = cache.key("train", INPUTS)
    assert cache.find("train", key) == (None, "")
    made = cache.put("train", key, INPUTS, filled())
    kept, damage = cache.find("train", key)
    assert (kept, damage) == (made, "")
    assert made.entry.note == "two files"
    assert made.entry.inputs == INPUTS


def test_other_inputs_have_another_key(cache: StageCache) -> None:
    keys = {cache.key("train", INPUTS), cache.key("dataset", INPUTS), cache.key("train", INPUTS | {"seed": 8})}
    assert len(keys) == 3
    assert cache.key("train", dict(reversed(INPUTS.items()))) in keys


def _torn(folder: Path) -> None:
    path = folder / "inner" / "data"
    path.write_bytes(path.read_bytes()[:3])


def _changed(folder: Path) -> None:
    (folder / "inner" / "data").write_bytes(b"abcdeF")


def _missing(folder: Path) -> None:
    (folder / "facts").unlink()


def _added(folder: Path) -> None:
    (folder / "inner" / "more").write_bytes(b"")


def _linked(folder: Path) -> None:
    path = folder / "facts"
    path.rename(folder.parent.parent / "elsewhere")
    path.symlink_to(folder.parent.parent / "elsewhere")


def _undescribed(folder: Path) -> None:
    (folder / ENTRY).unlink()


def _half_described(folder: Path) -> None:
    (folder / ENTRY).write_bytes((folder / ENTRY).read_bytes()[:-5])


def _described_otherwise(folder: Path) -> None:
    entry = json.loads((folder / ENTRY).read_bytes())
    del entry["files"][0]
    (folder / ENTRY).write_text(json.dumps(entry))


@pytest.mark.parametrize(
    "damage",
    [_torn, _changed, _missing, _added, _linked, _undescribed, _half_described, _described_otherwise],
)
def test_a_damaged_entry_is_removed_and_never_used(cache: StageCache, damage: Callable[[Path], None]) -> None:
    key = cache.key("train", INPUTS)
    folder = cache.put("train", key, INPUTS, filled()).folder
    damage(folder)
    kept, why = cache.find("train", key)
    assert kept is None
    assert why
    assert not folder.exists()
    assert cache.find("train", key) == (None, "")


@given(place=st.integers(0, 5), bit=st.integers(0, 7))
def test_any_flipped_bit_is_seen(place: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        cache = StageCache(root=Path(home), clock=ManualClock(NOW))
        folder = cache.put("train", "k", {}, filled()).folder
        data = bytearray(b"abcdef")
        data[place] ^= 1 << bit
        (folder / "inner" / "data").write_bytes(data)
        assert cache.find("train", "k")[0] is None


def test_what_raises_leaves_nothing(cache: StageCache) -> None:
    def half(folder: Path) -> str:
        (folder / "data").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.put("train", "k", INPUTS, half)
    assert list((cache.root / "train").iterdir()) == []


def test_the_oldest_go_first_beyond_the_bound(cache: StageCache) -> None:
    clock = cache.clock
    assert isinstance(clock, ManualClock)
    folders = []
    for name in "abcd":
        folder = put(cache, name, 1_000)
        cache.find("train", folder.name)  # used now
        clock.advance(DAY)
        folders.append(folder)
    half = cache.root / "train" / ".half"
    half.mkdir()
    (half / "data").write_bytes(b"1")
    left = cache.prune(keep=[folders[0]], max_bytes=3_000, max_age=3 * DAY)
    assert [folder.exists() for folder in folders] == [True, False, True, True]
    assert not half.exists()
    assert 3_000 < left < 5_000  # the kept one counts, and stays beyond the bound


def test_what_was_not_used_for_long_goes(cache: StageCache) -> None:
    clock = cache.clock
    assert isinstance(clock, ManualClock)
    old, used = put(cache, "old"), put(cache, "used")
    for folder in (old, used):
        cache.find("train", folder.name)
    clock.advance(3 * DAY)
    cache.find("train", used.name)
    cache.prune(max_age=2 * DAY)
    assert (old.exists(), used.exists()) == (False, True)
