"""Rebuilds a version from what its statement names, and holds every bit against it.

Nothing that was kept of the first training is used: rows and model are made anew. Code, lock, kernel and definition are
compared first, because they are what explains a difference; what decides is whether rows and model are the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from headway.core.canonical import canonical, sha256
from headway.core.errors import NotFound
from headway.core.progress import Progress, Stage
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.kernel import kernel_sha256
from headway.features.lake.reader import LakeReader
from headway.governance.statement import ModelStatement
from headway.models.backends import model_file
from headway.training import stored_dataset
from headway.training.dataset import build
from headway.training.definitions import TrainingJob, XGBoostRecipe
from headway.training.lock import require_locked
from headway.training.origin import code_sha256, describe_job, git_sha
from headway.training.steps import fit_rows
from headway.training.stored_fit import model_hashes

Verdict = Literal["same", "differs", "gone", "unknown", "not rebuilt"]
"""unknown: the version was signed before this was recorded."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a version is made of, or one file of it."""

    name: str
    verdict: Verdict
    recorded: str = ""
    found: str = ""
    note: str = ""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """A version held against what its inputs yield now."""

    use_case: str
    version: str
    reproduced: bool
    """Whether rows and model files are the same, bit for bit."""
    parts: tuple[Part, ...]

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of what is not as it was."""
        return tuple(part.name for part in self.parts if part.verdict not in ("same", "unknown"))


def reproduce(
    job: TrainingJob,
    statement: ModelStatement,
    definition: Mapping[str, Any],
    *,
    settings: Settings,
    reader: LakeReader,
    principal: Principal,
    progress: Progress,
) -> Reproduction:
    """Rebuild rows and model of a verified version with the project's job of today.

    Args:
        job: As the project declares it now.
        statement: The verified statement.
        definition: The version's `definition.json`.
        settings: The project, and where to work.
        reader: Access to the lake.
        principal: Who reads.
        progress: Shows the stages.

    Raises ServiceFailed where the installed packages are not those of the project's lock.
    """
    origin, as_of = definition.get("origin", {}), int(definition["as_of"])
    lock = require_locked(settings.project)
    parts = [
        _compared("code", statement.git_sha, git_sha(settings.project)),
        _compared("engine", str(origin.get("code_sha256", "")), code_sha256()),
        _compared("lock", statement.lock_sha256, lock),
        _compared("kernel", statement.kernel_sha256, kernel_sha256(job.service)),
        _definition(definition, describe_job(job, as_of)),
    ]
    workers = origin.get("world_size")
    if workers is not None and isinstance(job.recipe, XGBoostRecipe) and job.recipe.workers != workers:
        job = replace(job, recipe=replace(job.recipe, workers=int(workers)))
    gone = _gone(job, reader, statement.snapshots)
    parts += [Part(name=f"snapshot {table}", verdict="gone", recorded=str(number)) for table, number in gone.items()]
    if gone:
        left = [Part(name=name, verdict="not rebuilt") for name in ("dataset", *_model_files(statement))]
        return _judged(statement, [*parts, *left])
    parts += [
        Part(name=f"snapshot {table}", verdict="same", recorded=str(number), found=str(number))
        for table, number in statement.snapshots.items()
    ]
    with _folder(settings.home / "training") as folder:
        with progress.stage("dataset") as stage:
            rows = folder / "dataset"
            rows.mkdir()
            data = build(job, reader, as_of=as_of, principal=principal, snapshots=statement.snapshots)
            facts = stored_dataset.store(data, rows)
            del data
            parts.append(_said(stage, _compared("dataset", str(origin.get("dataset_sha256", "")), facts.sha256)))
        with progress.stage("train") as stage:
            stored = stored_dataset.load(rows, job, statement.snapshots)
            fitted = fit_rows(stored, job, settings.project, as_of, folder.name, folder / "checkpoints")
            made = {model_file(name): digest for name, digest in model_hashes(fitted).items()}
            for name, recorded in _model_files(statement).items():
                parts.append(_said(stage, _compared(name, recorded, made.get(name, ""))))
    return _judged(statement, parts)


def _model_files(statement: ModelStatement) -> dict[str, str]:
    """Return the version's model files and their hashes."""
    return {entry.path: entry.sha256 for entry in statement.files if entry.path.startswith("model.")}


def _gone(job: TrainingJob, reader: LakeReader, snapshots: Mapping[str, int]) -> dict[str, int]:
    """Return the snapshots that the lake has no more."""
    gone = {}
    for table in (job.spine.table, *(view.source.table for view in job.service.stored)):
        number = snapshots.get(table, -1)
        try:
            there = number >= 0 and reader.has(table, number)
        except NotFound:
            there = False
        if not there:
            gone[table] = number
    return gone


def _definition(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Part:
    """Compare the job as it was with the job as it is, and name the fields that changed."""
    before = {name: value for name, value in recorded.items() if name != "origin"}
    now = msgspec.json.decode(canonical(dict(found)))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    part = _compared("definition", sha256(canonical(before)), sha256(canonical(now)))
    return msgspec.structs.replace(part, note=", ".join(changed))


def _compared(name: str, recorded: str, found: str) -> Part:
    verdict: Verdict = "unknown" if not recorded else "same" if recorded == found else "differs"
    return Part(name=name, verdict=verdict, recorded=recorded, found=found)


def _said(stage: Stage, part: Part) -> Part:
    stage.note(f"{part.name}: {part.verdict}")
    return part


def _judged(statement: ModelStatement, parts: list[Part]) -> Reproduction:
    decides = {"dataset", *_model_files(statement)}
    same = all(part.verdict == "same" for part in parts if part.name in decides)
    return Reproduction(use_case=statement.name, version=statement.version, reproduced=same, parts=tuple(parts))


@contextmanager
def _folder(home: Path) -> Iterator[Path]:
    """Give a folder of its own, which is removed."""
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="reproduce-", dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
