"""Checkpoints that a restarted worker may trust: each names its model file's hash, and a damaged one is passed over.

A parser of model files can be crashed by a few bytes, and a crash would be met again at every restart: so the hash is
compared before anything is parsed, and an earlier checkpoint, or none, takes the place of a damaged one.
"""

from __future__ import annotations

from pathlib import Path

from headway.core.canonical import sha256_file

HASH_FILE = "model.sha256"


def seal(folder: Path, name: str) -> None:
    """Write the hash of a checkpoint's model file beside it."""
    (folder / HASH_FILE).write_text(sha256_file(folder / name))


def sound(folder: Path, name: str) -> bool:
    """Tell whether a checkpoint's model file is as it was written."""
    try:
        return (folder / HASH_FILE).read_text() == sha256_file(folder / name)
    except (OSError, UnicodeError):
        return False


def newest_sound(newest: Path, name: str) -> tuple[Path | None, int]:
    """Return the newest sound checkpoint, and how many were passed over to find it.

    Args:
        newest: Folder of the newest checkpoint; earlier ones lie beside it and sort before it.
        name: Its model file.
    """
    earlier = [path for path in newest.parent.glob("checkpoint_*") if path.is_dir() and path.name < newest.name]
    candidates = [newest, *sorted(earlier, reverse=True)]
    for passed_over, folder in enumerate(candidates):
        if sound(folder, name):
            return folder, passed_over
    return None, len(candidates)
