"""What stages made, kept by the hash of their inputs: a killed run goes on where it was, an equal one costs nothing.

An entry is a folder that appears in one step, with the hashes of its files beside them. What is torn, changed or
incomplete is removed when it is looked up, so that it is made again and never used.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headway.core.canonical import canonical, sha256, sha256_file
from headway.core.clock import Clock
from headway.core.times import DAY

ENTRY = "entry.json"
FORMAT = 1
MAX_BYTES = 5 << 30
"""Kept per use case."""
MAX_AGE = 14 * DAY
_MAX_ENTRY = 1 << 20


class _File(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    size: int
    sha256: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside the files of a stage."""

    stage: str
    inputs: dict[str, Any]
    """As hashed, for whoever asks why something was made again."""
    seconds: float
    note: str
    files: tuple[_File, ...]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An entry whose files are as they were made."""

    folder: Path
    entry: Entry


@dataclass(frozen=True, kw_only=True)
class StageCache:
    """The entries of one use case; one run at a time uses it."""

    root: Path
    clock: Clock

    def key(self, stage: str, inputs: Mapping[str, Any]) -> str:
        """Return the hash of a stage's inputs."""
        return sha256(canonical({"format": FORMAT, "stage": stage, "inputs": dict(inputs)}))

    def find(self, stage: str, key: str) -> tuple[Kept | None, str]:
        """Return the entry, or None and why there was one that cannot be used; that one is removed."""
        folder = self.root / stage / key
        if not folder.exists():
            return None, ""
        entry, damage = _verified(folder)
        if entry is None:
            shutil.rmtree(folder)
            return None, damage
        now = self.clock.now() / 1e6
        os.utime(folder, (now, now))
        return Kept(folder=folder, entry=entry), ""

    def put(self, stage: str, key: str, inputs: Mapping[str, Any], make: Callable[[Path], str]) -> Kept:
        """Let `make` fill a folder and return a note, and keep it; what it leaves when it raises is removed."""
        home = self.root / stage
        home.mkdir(parents=True, exist_ok=True)
        start = self.clock.monotonic()
        made = Path(tempfile.mkdtemp(prefix=".", dir=home))
        try:
            note = make(made)
            files = tuple(
                _File(path=str(path.relative_to(made)), size=path.stat().st_size, sha256=sha256_file(path))
                for path in sorted(made.rglob("*"))
                if path.is_file()
            )
            entry = Entry(
                stage=stage, inputs=dict(inputs), seconds=self.clock.monotonic() - start, note=note, files=files
            )
            (made / ENTRY).write_bytes(msgspec.json.encode(entry))
            folder = home / key
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return Kept(folder=folder, entry=entry)

    def drop(self, stage: str, key: str) -> None:
        """Forget an entry."""
        shutil.rmtree(self.root / stage / key, ignore_errors=True)

    def prune(self, *, keep: Collection[Path] = (), max_bytes: int = MAX_BYTES, max_age: int = MAX_AGE) -> int:
        """Remove what killed runs left half made, then entries long unused, then the oldest beyond the bound.

        Returns the bytes that are left. `keep` are folders of entries that stay whatever their age.
        """
        found = [(path.stat().st_mtime, path) for path in self.root.glob("*/*") if path.is_dir()]
        oldest = (self.clock.now() - max_age) / 1e6
        left = 0
        for used, path in sorted(found, reverse=True):
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            unwanted = path.name.startswith(".") or used < oldest or left + size > max_bytes
            if unwanted and path not in keep:
                shutil.rmtree(path)
            else:
                left += size
        return left


def _verified(folder: Path) -> tuple[Entry | None, str]:
    try:
        entry = msgspec.json.decode((folder / ENTRY).read_bytes()[:_MAX_ENTRY], type=Entry)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return None, "its description cannot be read"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    if there != {file.path for file in entry.files} | {ENTRY}:
        return None, "files are missing or were added"
    for file in entry.files:
        path = folder / file.path
        if path.is_symlink() or path.stat().st_size != file.size or sha256_file(path) != file.sha256:
            return None, f"{file.path} is not as it was made"
    return entry, ""
