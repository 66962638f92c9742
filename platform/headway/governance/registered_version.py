"""A version as the registry knows it: its tags in MLflow, and where its files lie on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from headway.core.errors import InvalidValue, PlatformError
from headway.governance.mlflow_client import download_folder
from headway.governance.statement import ModelStatement

FOLDER = "model"
"""Artefact folder of a run that holds the version's files."""
STATE = "headway.state"
ENVIRONMENT = "headway.environment"
STATEMENT = "headway.statement_sha256"
"""Tags of a version in MLflow."""
LINEAGE = "headway.lineage."
"""Prefix of the tags that say what a version was made from."""
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
    lineage: Mapping[str, str] = field(default_factory=dict)
    """What it was made from, by the registry's tags; the signed statement is what proves it."""


def lineage_tags(statement: ModelStatement) -> dict[str, str]:
    """Return the tags that name a version's snapshots, feature service, contract, kernel, code and environment."""
    return {
        f"{LINEAGE}feature_service": statement.feature_service,
        f"{LINEAGE}contract_sha256": statement.contract_sha256,
        f"{LINEAGE}kernel_sha256": statement.kernel_sha256,
        f"{LINEAGE}git_sha": statement.git_sha,
        f"{LINEAGE}lock_sha256": statement.lock_sha256,
        f"{LINEAGE}requested_by": statement.requested_by,
        **{f"{LINEAGE}snapshot.{table}": str(snapshot) for table, snapshot in statement.snapshots.items()},
    }


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
        lineage={
            key.removeprefix(LINEAGE): text for key, text in sorted(model.tags.items()) if key.startswith(LINEAGE)
        },
    )


def fetched(client: Any, model: Any, downloads: Path | None, *, uri: str) -> RegisteredVersion:
    """Return a version with its files on this machine."""
    found = listed(model, downloads)
    if _local(str(model.source)) is None:
        if downloads is None:
            raise PlatformError(
                f"no folder is set to fetch the files of {model.name} {model.version} to",
                hint="make the registry by registry_from(settings, …)",
            )
        if not found.path.exists():
            _download(client, model, found.path, uri)
    return found


def _download(client: Any, model: Any, target: Path, uri: str) -> None:
    """Fetch into a folder beside the target and move it into place, so that a crash leaves no half version."""
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        arrived = Path(folder) / FOLDER
        download_folder(client, uri, model.run_id, FOLDER, arrived)
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
