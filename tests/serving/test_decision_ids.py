from __future__ import annotations

import stat
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import CorruptState
from headway.serving.decision_ids import DecisionIds, load_key

IDS = DecisionIds(b"k" * 32, "fraud")


@given(now=st.integers(0, 2**47 * 1_000), count=st.integers(1, 50))
def test_ids_are_uuid7_of_the_time_and_known_to_their_use_case_only(now: int, count: int) -> None:
    made = IDS.make(count, now)
    assert len(set(made)) == count
    for text in made:
        value = uuid.UUID(text)
        assert (value.version, value.variant) == (7, uuid.RFC_4122)
        assert value.int >> 80 == now // 1_000
        assert IDS.known(text)
        assert not DecisionIds(b"k" * 32, "churn").known(text)
        assert not DecisionIds(b"j" * 32, "fraud").known(text)


@given(bit=st.integers(0, 127))
def test_no_bit_can_be_changed(bit: int) -> None:
    [text] = IDS.make(1, 1_700_000_000_000_000)
    changed = str(uuid.UUID(int=uuid.UUID(text).int ^ (1 << bit)))
    assert not IDS.known(changed)


@given(st.text(max_size=40))
def test_other_texts_are_unknown(text: str) -> None:
    assert not IDS.known(text)


def test_only_the_canonical_spelling_counts() -> None:
    [text] = IDS.make(1, 0)
    assert not IDS.known(text.upper() if text.upper() != text else f"{{{text}}}")
    assert not IDS.known(text.replace("-", ""))


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ids.key"
    key = load_key(path)
    assert load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["ids.key"]


def test_a_broken_key_is_an_error_not_a_new_key(tmp_path: Path) -> None:
    path = tmp_path / "ids.key"
    path.write_bytes(b"short")
    with pytest.raises(CorruptState, match="5 bytes"):
        load_key(path)
    assert path.read_bytes() == b"short"


def test_one_thread_makes_while_others_check() -> None:
    ids = DecisionIds(b"k" * 32, "fraud")
    made = ids.make(50, 1_700_000_000_000_000)
    stop = threading.Event()
    failed: list[object] = []

    def check() -> None:
        while not stop.is_set():
            try:
                failed.extend(text for text in made if not ids.known(text))
            except RuntimeError as error:  # a cipher context refuses two callers
                failed.append(error)

    checking = [threading.Thread(target=check) for _ in range(2)]
    for thread in checking:
        thread.start()
    try:
        for _ in range(100):
            ids.make(512, 1_700_000_000_000_000)
    finally:
        stop.set()
        for thread in checking:
            thread.join()
    assert failed == []
