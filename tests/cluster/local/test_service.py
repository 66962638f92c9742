from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headway.cluster.local.service import is_secret, private_secret
from headway.core.errors import CorruptState


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "x.secret"
    secret = private_secret(path)
    assert is_secret(secret)
    assert private_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["x.secret"]


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_kill_while_it_is_made_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit

    path = tmp_path / "x.secret"
    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", killed)
        else:
            patch.setattr(os, "fdopen", killed)
        with pytest.raises(SystemExit):
            private_secret(path)
    assert is_secret(private_secret(path))


@pytest.mark.parametrize("content", ["", "\n", "ab" * 31, "g" * 64, "ab" * 33, "ab" * 31 + "  "])
def test_what_is_no_secret_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.secret"
    path.write_text(content)
    with pytest.raises(CorruptState, match=r"x\.secret") as caught:
        private_secret(path)
    assert "headway up" in (caught.value.hint or "")
    assert path.read_text() == content


def test_all_who_come_first_get_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        for round_ in range(20):
            path = tmp_path / f"{round_}.secret"
            assert len(set(pool.map(private_secret, [path] * 8))) == 1
