"""The model registry: versions, aliases and environments in MLflow, each governed act audited before and after.

MLflow keeps names, runs and aliases; what may be loaded is decided by the signed statement, not by MLflow. The version
stands in the statement, so it is reserved first, signed second, and filled last; a version that never got its files
stays visible as failed and can have no alias.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from headway.core.clock import Clock
from headway.core.errors import (
    Conflict,
    HeadwayError,
    InvalidValue,
    NotFound,
    PlatformError,
    Unauthenticated,
    Unavailable,
)
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.governance.audit_event import AuditSink
from headway.governance.statement import read_statement

ALIASES = ("champion", "challenger", "previous")
ENVIRONMENTS = ("staging", "production")
FOLDER = "model"
"""Artefact folder of a run that holds the version's files."""
_STATE = "headway.state"
_ENVIRONMENT = "headway.environment"
_STATEMENT = "headway.statement_sha256"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
"""MLflow is configured by environment only; whatever the installation set itself stays."""


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


class Registry:
    """Registers, resolves and promotes model versions; every call names who acts."""

    def __init__(
        self,
        tracking_uri: str,
        audit: AuditSink,
        clock: Clock,
        *,
        artifacts: Path | None = None,
        downloads: Path | None = None,
    ) -> None:
        self._uri = tracking_uri
        self._audit = audit
        self._clock = clock
        self._artifacts = artifacts
        self._downloads = downloads
        self._connected: Any = None

    def register(
        self,
        name: str,
        folder: Path,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, object],
        tags: Mapping[str, str],
        principal: Principal,
        sign: Callable[[str, str], object],
    ) -> RegisteredVersion:
        """Reserve a version, let `sign(run_id, version)` sign `folder` for it, and fill it."""
        run_id, version = self.reserve(name, principal)
        try:
            sign(run_id, version)
            return self.finish(name, version, folder, metrics=metrics, params=params, tags=tags, principal=principal)
        except BaseException:
            self.abandon(name, version, principal)
            raise

    def reserve(self, name: str, principal: Principal) -> tuple[str, str]:
        """Create a run and an empty version; return (run id, version). The next step is to sign, then `finish`."""
        self._authorise(principal, "write", "reserve", name)
        self._record(principal, "reserve", name, "intended")
        with self._calls("model", name) as client:
            experiment = self._experiment(client, name)
            run = client.create_run(experiment, run_name=name, tags={"mlflow.user": principal.sub})
            _unless_exists(lambda: client.create_registered_model(name))
            model = client.create_model_version(
                name,
                source=f"{run.info.artifact_uri}/{FOLDER}",
                run_id=run.info.run_id,
                tags={_STATE: "reserved", _ENVIRONMENT: "staging"},
                await_creation_for=None,
            )
        run_id, version = str(run.info.run_id), str(model.version)
        self._record(principal, "reserve", f"{name}/{version}", "done")
        return run_id, version

    def finish(
        self,
        name: str,
        version: str,
        folder: Path,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, object],
        tags: Mapping[str, str],
        principal: Principal,
    ) -> RegisteredVersion:
        """Store the signed files of a reserved version; NotSigned without statement, Conflict if filled before."""
        self._authorise(principal, "write", "finish", f"{name}/{version}")
        statement_sha256 = read_statement(folder).payload_sha256
        with self._calls("version", f"{name}/{version}") as client:
            model = client.get_model_version(name, version)
            if model.tags.get(_STATE) != "reserved":
                raise Conflict(f"{name} {version} is {model.tags.get(_STATE)}", hint="versions are never filled twice")
            with self._act(principal, "finish", f"{name}/{version}", (statement_sha256,)):
                self._log(client, model.run_id, metrics, params)
                client.log_artifacts(model.run_id, str(folder), FOLDER)
                for key, text in {**tags, _STATEMENT: statement_sha256, _STATE: "ready"}.items():
                    client.set_model_version_tag(name, version, key, str(text))
                client.set_terminated(model.run_id, "FINISHED", end_time=self._clock.now() // 1_000)
            return self._version(client, client.get_model_version(name, version))

    def abandon(
        self, name: str, version: str, principal: Principal, *, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Mark a reserved version as failed; its run stays as evidence, with the metrics that it failed on."""
        self._authorise(principal, "write", "abandon", f"{name}/{version}")
        with self._calls("version", f"{name}/{version}") as client:
            model = client.get_model_version(name, version)
            if model.tags.get(_STATE) != "reserved":
                raise Conflict(f"{name} {version} is {model.tags.get(_STATE)}", hint="only a reserved version can fail")
            with self._act(principal, "abandon", f"{name}/{version}"):
                self._log(client, model.run_id, metrics or {}, {})
                client.set_model_version_tag(name, version, _STATE, "failed")
                client.set_terminated(model.run_id, "FAILED", end_time=self._clock.now() // 1_000)

    def alias(self, name: str, alias: str, version: str, principal: Principal) -> None:
        """Point an alias at a ready version. The routing record decides what serves; aliases follow it."""
        if alias not in ALIASES:
            raise InvalidValue("alias", f"{alias!r}", hint=f"one of {', '.join(ALIASES)}")
        self._authorise(principal, "write", f"alias.{alias}", f"{name}/{version}")
        with self._calls("version", f"{name}/{version}") as client:
            model = self._ready(client, name, version)
            with self._act(principal, f"alias.{alias}", f"{name}/{version}", _refs(model)):
                client.set_registered_model_alias(name, alias, version)

    def move(self, name: str, version: str, environment: str, principal: Principal) -> None:
        """Move a ready version to staging or production."""
        if environment not in ENVIRONMENTS:
            raise InvalidValue("environment", f"{environment!r}", hint=f"one of {', '.join(ENVIRONMENTS)}")
        self._authorise(principal, "write", f"move.{environment}", f"{name}/{version}")
        with self._calls("version", f"{name}/{version}") as client:
            model = self._ready(client, name, version)
            with self._act(principal, f"move.{environment}", f"{name}/{version}", _refs(model)):
                client.set_model_version_tag(name, version, _ENVIRONMENT, environment)

    def resolve(self, name: str, alias_or_version: str, principal: Principal) -> RegisteredVersion:
        """Return a ready version by alias (`@champion` or `champion`) or number, its files on this machine."""
        wanted = alias_or_version.removeprefix("@")
        self._authorise(principal, "read", "resolve", f"{name}/{wanted}")
        with self._calls("version", f"{name}/{wanted}") as client:
            if wanted.isdigit():
                model = self._ready(client, name, wanted)
            else:
                model = client.get_model_version_by_alias(name, wanted)
                model = self._ready(client, name, str(model.version))
            found = self._version(client, model)
        self._record(principal, "resolve", f"{name}/{wanted}", "done", refs=_refs(model))
        return found

    def versions(self, name: str, principal: Principal) -> list[RegisteredVersion]:
        """Return all versions of a model, newest first; an unknown model has none."""
        self._authorise(principal, "read", "versions", name)
        with self._calls("model", name) as client:
            models = client.search_model_versions(f"name = '{_name(name)}'")
            # a search leaves out aliases
            found = [self._listed(client.get_model_version(name, model.version)) for model in models]
        return sorted(found, key=lambda item: int(item.version), reverse=True)

    def _log(self, client: Any, run_id: str, metrics: Mapping[str, float], params: Mapping[str, object]) -> None:
        """Record all values in one call."""
        from mlflow.entities import Metric, Param

        now = self._clock.now() // 1_000
        client.log_batch(
            run_id,
            metrics=[Metric(key, float(number), now, 0) for key, number in metrics.items()],
            params=[Param(key, str(value)) for key, value in params.items()],
        )

    def _listed(self, model: Any) -> RegisteredVersion:
        return RegisteredVersion(
            version=str(int(model.version)),
            path=_local(str(model.source)) or (self._downloads or Path()) / _name(model.name) / str(int(model.version)),
            run_id=str(model.run_id),
            state=model.tags.get(_STATE, "failed"),
            environment=model.tags.get(_ENVIRONMENT, "staging"),
            aliases=tuple(sorted(model.aliases)),
            statement_sha256=model.tags.get(_STATEMENT, ""),
        )

    def _version(self, client: Any, model: Any) -> RegisteredVersion:
        found = self._listed(model)
        if _local(str(model.source)) is None:
            if self._downloads is None:
                raise PlatformError(
                    f"no folder is set to fetch the files of {model.name} {model.version} to",
                    hint="make the registry by registry_from(settings, …)",
                )
            if not found.path.exists():
                self._download(client, model, found.path)
        return found

    def _download(self, client: Any, model: Any, target: Path) -> None:
        """Fetch into a folder beside the target and move it into place, so that a crash leaves no half version."""
        import tempfile

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fetched = Path(client.download_artifacts(model.run_id, FOLDER, folder))
            try:
                fetched.rename(target)
            except OSError:
                if not target.exists():
                    raise

    def _ready(self, client: Any, name: str, version: str) -> Any:
        model = client.get_model_version(name, version)
        if model.tags.get(_STATE) != "ready":
            raise Conflict(f"{name} {version} is {model.tags.get(_STATE)}, not ready", hint="headway models list")
        return model

    def _experiment(self, client: Any, name: str) -> str:
        found = client.get_experiment_by_name(name)
        if found is None:
            location = None if self._artifacts is None else (self._artifacts / name).absolute().as_uri()
            _unless_exists(lambda: client.create_experiment(name, artifact_location=location))
            found = client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def _authorise(self, principal: Principal, verb: str, action: str, resource: str) -> None:
        _name(resource.partition("/")[0])
        if self._clock.now() >= principal.expires:
            raise Unauthenticated("the identity has expired", hint="headway login")
        if f"registry:{verb}" not in principal.scopes:
            self._record(principal, action, resource, "denied")
        principal.require("registry", verb)

    @contextmanager
    def _act(self, principal: Principal, action: str, resource: str, refs: tuple[str, ...] = ()) -> Iterator[None]:
        """Record that a change is meant before it is made, and its outcome after: what cannot be recorded is not done.

        An intent without outcome was cut short; the registry shows how far it came.
        """
        self._record(principal, action, resource, "intended", refs=refs)
        try:
            yield
        except BaseException:
            with suppress(HeadwayError):  # the act's own error says more
                self._record(principal, action, resource, "failed", refs=refs)
            raise
        self._record(principal, action, resource, "done", refs=refs)

    def _record(
        self, principal: Principal, action: str, resource: str, outcome: str, *, refs: tuple[str, ...] = ()
    ) -> None:
        self._audit.append(
            actor=principal.sub,
            kind=principal.kind,
            action=f"registry.{action}",
            resource=f"model:{resource}",
            purpose=principal.purpose,
            outcome=outcome,
            refs=refs,
        )

    @contextmanager
    def _calls(self, kind: str, what: str) -> Iterator[Any]:
        """Give the client, and turn MLflow's errors into ours."""
        if self._connected is None:
            self._connected = _client(self._uri)
        from mlflow.exceptions import MlflowException

        try:
            yield self._connected
        except MlflowException as error:
            raise _translated(error, kind, what) from error


def registry_from(settings: Settings, audit: AuditSink, clock: Clock) -> Registry:
    """Return the registry of an installation; files that it serves by HTTP are fetched to `home/models`."""
    return Registry(settings.mlflow_uri, audit, clock, downloads=settings.home / "models")


def _client(uri: str) -> Any:
    for key, value in _MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _unless_exists(create: Callable[[], object]) -> None:
    """Create something that another process may have created meanwhile."""
    from mlflow.exceptions import MlflowException

    try:
        create()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _translated(error: Any, kind: str, what: str) -> Exception:
    code = error.error_code
    missing_alias = code == "INVALID_PARAMETER_VALUE" and "alias" in str(error)
    if code == "RESOURCE_DOES_NOT_EXIST" or missing_alias:
        return NotFound(kind, what)
    if code in {"RESOURCE_ALREADY_EXISTS", "RESOURCE_CONFLICT"}:
        return Conflict(f"{what}: {error.message}", hint="read it again and repeat")
    if code in {"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR"}:
        return Unavailable(f"the registry does not answer: {error.message}", retry_after_s=2.0, hint="headway status")
    return PlatformError(f"the registry refused {what}: {error.message}", hint="headway status")


def _local(source: str) -> Path | None:
    place = urlparse(source)
    if place.scheme in {"", "file"} and place.netloc in {"", "localhost"}:
        return Path(unquote(place.path))
    return None


def _name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InvalidValue("name", f"{name!r} is not a model name", hint="lower-case letters, digits and _")
    return name


def _refs(model: Any) -> tuple[str, ...]:
    digest = model.tags.get(_STATEMENT, "")
    return (digest,) if digest else ()
