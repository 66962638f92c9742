"""Where a version came from, as far as the machine can tell: code, locked packages, definition, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import msgspec

from headway.core.canonical import canonical, sha256, sha256_file
from headway.training.definitions import Recipe, TrainingJob

UNKNOWN = ""
JUDGING = ("refresh", "segments", "protected", "sources", "blocks", "calibration_error", "latency_share", "verdicts")
"""Fields of a job that decide how its candidate is judged, besides gates and group."""
_GIT_TIMEOUT_S = 10


def git_sha(project: Path) -> str:
    """Return the commit of the project, `+changed` where files differ from it; empty without git or repository."""
    commit = _git(project, "rev-parse", "HEAD")
    if commit is None:
        return UNKNOWN
    return f"{commit}+changed" if _git(project, "status", "--porcelain", "--untracked-files=no") else commit


def lock_sha256(project: Path) -> str:
    """Return the hash of `requirements.lock`; empty where there is none."""
    path = project / "requirements.lock"
    return sha256_file(path) if path.is_file() else UNKNOWN


def code_sha256() -> str:
    """Return the hash of the engine's code that decides what a training makes: features, models, training."""
    home = Path(__file__).parents[1]
    files = [file for room in ("features", "models", "training") for file in sorted((home / room).rglob("*.py"))]
    return sha256(canonical({str(file.relative_to(home)): sha256_file(file) for file in files}))


def machine() -> str:
    """Return the machine in words: `2 × x86_64, Linux`."""
    return f"{os.cpu_count() or 1} × {platform.machine()}, {platform.system()}"


def describe_job(job: TrainingJob, as_of: int) -> dict[str, Any]:
    """Return the job as builtin types: what `definition.json` keeps and what a reproduction needs."""
    train, evaluate = job.ranges(as_of)
    return {
        "use_case": job.use_case,
        "as_of": as_of,
        "spine": job.spine.table,
        "label": job.label,
        "label_delay": job.label_delay,
        "train": list(train),
        "evaluate": list(evaluate),
        "recipe": describe_recipe(job.recipe),
        "gates": [asdict(gate) for gate in job.gates],
        "judging": describe_judging(job),
        "group": job.group,
        "seed": job.seed,
        "service": job.service.describe(),
    }


def describe_judging(job: TrainingJob) -> dict[str, Any]:
    """Return what the job declares about judging besides its gates, as builtin types."""
    return {name: msgspec.to_builtins(getattr(job, name)) for name in JUDGING}


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as builtin types, its kind first."""
    told = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return {"kind": type(recipe).__name__, **msgspec.to_builtins(told, str_keys=True)}


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
