"""A version's lock is that of the packages which really run."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from headway.core.canonical import sha256_file
from headway.core.errors import DefinitionError, ServiceFailed
from headway.training.lock import differences, read_lock, require_asked, require_locked
from tests.conftest import ROOT


def lock(folder: Path, *lines: str) -> Path:
    (folder / "requirements.lock").write_text("\n".join(lines) + "\n")
    return folder


def test_this_environment_is_as_locked() -> None:
    assert require_locked(ROOT) == sha256_file(ROOT / "requirements.lock")


def test_a_project_without_lock_has_no_hash(tmp_path: Path) -> None:
    assert require_locked(tmp_path) == ""


def test_pins_are_read_with_extras_markers_and_comments(tmp_path: Path) -> None:
    found = read_lock(
        lock(
            tmp_path,
            "# a comment",
            "",
            "# --- runtime",
            "ray[data,serve]==2.60.0  # the runtime",
            'nvidia-nccl-cu12==2.32.3 ; platform_system == "Linux"',
            "# --- development",
            "ruff==0.1",
            "# --- needed by the above",
            "idna==3.1",
        )
    )
    assert found is not None
    assert found.pins == {"ray": "2.60.0", "nvidia-nccl-cu12": "2.32.3", "ruff": "0.1", "idna": "3.1"}
    assert found.development == {"nvidia-nccl-cu12", "ruff"}


def test_a_mismatch_names_the_packages(tmp_path: Path) -> None:
    numpy = metadata.version("numpy")
    project = lock(tmp_path, "numpy==1.0", "no-such-package==2", "# --- development", "no-such-tool==1", "ruff==0.0.1")
    with pytest.raises(ServiceFailed) as caught:
        require_locked(project)
    assert f"numpy {numpy} (locked 1.0)" in caught.value.message
    assert "no-such-package is missing (locked 2)" in caught.value.message
    assert "ruff" in caught.value.message
    assert "no-such-tool" not in caught.value.message
    assert caught.value.hint is not None
    assert "pip install" in caught.value.hint


def test_a_build_tag_is_no_other_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"torch": "2.13.0+cpu"}.__getitem__)
    found = read_lock(lock(tmp_path, "torch==2.13.0"))
    assert found is not None
    assert differences(found) == []


def test_another_lock_than_the_askers_is_refused(tmp_path: Path) -> None:
    lock(tmp_path, f"numpy=={metadata.version('numpy')}")
    with pytest.raises(ServiceFailed, match="not the one of whoever asked"):
        require_locked(tmp_path, "a" * 64)


def test_a_line_that_pins_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="line 2"):
        require_locked(lock(tmp_path, "# ---", "numpy>=2"))


def test_a_worker_checks_its_own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_asked()  # no training job
    monkeypatch.setenv("HEADWAY_PROJECT", str(lock(tmp_path, f"numpy=={metadata.version('numpy')}")))
    monkeypatch.setenv("HEADWAY_LOCK_SHA256", sha256_file(tmp_path / "requirements.lock"))
    require_asked()
    lock(tmp_path, "numpy==1.0")
    with pytest.raises(ServiceFailed, match="not the one of whoever asked"):
        require_asked()
