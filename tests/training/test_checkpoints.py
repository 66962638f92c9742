"""A restarted worker trusts only checkpoints that are as they were written."""

from __future__ import annotations

from pathlib import Path

from headway.training.recipes.checkpoints import HASH_FILE, newest_sound, seal, sound

MODEL = "model.json"


def checkpoints(home: Path, *names: str) -> list[Path]:
    made = []
    for name in names:
        folder = home / f"checkpoint_{name}"
        folder.mkdir()
        (folder / MODEL).write_bytes(name.encode())
        seal(folder, MODEL)
        made.append(folder)
    return made


def test_the_newest_is_taken_where_it_is_sound(tmp_path: Path) -> None:
    *_, newest = checkpoints(tmp_path, "1", "2")
    assert newest_sound(newest, MODEL) == (newest, 0)


def test_an_earlier_one_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    first, second, newest = checkpoints(tmp_path, "1", "2", "3")
    (newest / MODEL).write_bytes(b"torn")
    (second / HASH_FILE).unlink()
    assert newest_sound(newest, MODEL) == (first, 2)


def test_one_that_is_newer_than_what_ray_knows_is_not_taken(tmp_path: Path) -> None:
    known, _ = checkpoints(tmp_path, "1", "2")
    assert newest_sound(known, MODEL) == (known, 0)
    (known / MODEL).write_bytes(b"torn")
    assert newest_sound(known, MODEL) == (None, 1)


def test_a_missing_model_is_not_sound(tmp_path: Path) -> None:
    (folder,) = checkpoints(tmp_path, "1")
    (folder / MODEL).unlink()
    assert not sound(folder, MODEL)
