"""A version as the registry knows it: its tags in MLflow, and where its files lie on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from headway.core.errors import InvalidValue, PlatformError

FOLDER = "model"
"""Artefact folder of a run that holds the version's files."""
STATE = "headway.state"
ENVIRONMENT = "headway.environment"
STATEMENT = "headway.statement_sha256"
"""Tags of a version in MLflow."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """A version in the registry and where its files lie on this machine."""

    version: str
    path: Path
    """Folder of the artefact with its signed statement; verify it before loading."""
    run_id: str
    state: str = "ready"
    """reserved | ready | failed."""
    environment: str = "staging"
    aliases: tuple[str, ...] = ()
    statement_sha256: str = ""


def listed(model: Any, downloads: Path | None) -> RegisteredVersion:
    """Return a version from its tags; its files may not be here yet."""
    return RegisteredVersion(
        version=str(int(model.version)),
        path=_local(str(model.source)) or (downloads or Path()) / model_name(model.name) / str(int(model.version)),
        run_id=str(model.run_id),
        state=model.tags.get(STATE, "failed"),
        environment=model.tags.get(ENVIRONMENT, "staging"),
        aliases=tuple(sorted(model.aliases)),
        statement_sha256=model.tags.get(STATEMENT, ""),
    )


def fetched(client: Any, model: Any, downloads: Path | None) -> RegisteredVersion:
    """Return a version with its files on this machine."""
    found = listed(model, downloads)
    if _local(str(model.source)) is None:
        if downloads is None:
            raise PlatformError(
                f"no folder is set to fetch the files of {model.name} {model.version} to",
                hint="make the registry by registry_from(settings, …)",
            )
        if not found.path.exists():
            _download(client, model, found.path)
    return found


def _download(client: Any, model: Any, target: Path) -> None:
    """Fetch into a folder beside the target and move it into place, so that a crash leaves no half version."""
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        arrived = Path(client.download_artifacts(model.run_id, FOLDER, folder))
        try:
            arrived.rename(target)
        except OSError:
            if not target.exists():
                raise


def _local(source: str) -> Path | None:
    place = urlparse(source)
    if place.scheme in {"", "file"} and place.netloc in {"", "localhost"}:
        return Path(unquote(place.path))
    return None


def model_name(name: str) -> str:
    """Return the name; InvalidValue where it is none of a model."""
    if _NAME.fullmatch(name) is None:
        raise InvalidValue("name", f"{name!r} is not a model name", hint="lower-case letters, digits and _")
    return name
