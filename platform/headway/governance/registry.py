"""The model registry: versions, aliases and environments in MLflow, each governed act audited before and after.

MLflow keeps names, runs and aliases; what may be loaded is decided by the signed statement, not by MLflow. The version
stands in the statement, so it is reserved first, signed second, and filled last; a version that never got its files
stays visible as failed and can have no alias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headway.core.clock import Clock
from headway.core.errors import Conflict, HeadwayError, InvalidValue, Unauthenticated
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.governance.audit_event import AuditSink
from headway.governance.mlflow_client import Mlflow, experiment_of, log_values, unless_exists
from headway.governance.registered_version import (
    ENVIRONMENT,
    FOLDER,
    STATE,
    STATEMENT,
    RegisteredVersion,
    fetched,
    lineage_tags,
    listed,
    model_name,
)
from headway.governance.roles import CI, READER
from headway.governance.statement import parse_statement, read_statement

ALIASES = ("champion", "challenger", "previous")
ENVIRONMENTS = ("staging", "production")
Tokens = Callable[[Principal, str], str]
"""Returns the token by which an identity calls the registry's server to `read` or to `write`."""


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
        tokens: Tokens | None = None,
    ) -> None:
        self._mlflow = Mlflow(tracking_uri)
        self._tokens = tokens
        self._audit = audit
        self._clock = clock
        self._artifacts = artifacts
        self._downloads = downloads

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
            with suppress(HeadwayError):  # why it could not be registered says more
                self.abandon(name, version, principal)
            raise

    def reserve(self, name: str, principal: Principal) -> tuple[str, str]:
        """Create a run and an empty version; return (run id, version). The next step is to sign, then `finish`."""
        self._authorise(principal, "write", "reserve", name)
        self._record(principal, "reserve", name, "intended")
        with self._calls(principal, "write", "model", name) as client:
            experiment = experiment_of(client, name, self._artifacts)
            run = client.create_run(experiment, run_name=name, tags={"mlflow.user": principal.sub})
            unless_exists(lambda: client.create_registered_model(name))
            model = client.create_model_version(
                name,
                source=f"{run.info.artifact_uri}/{FOLDER}",
                run_id=run.info.run_id,
                tags={STATE: "reserved", ENVIRONMENT: "staging"},
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
        """Store the signed files of a reserved version; NotSigned without statement, Conflict if filled with others.

        It may be called again after it failed half way, with the same files.
        """
        self._authorise(principal, "write", "finish", f"{name}/{version}")
        envelope = read_statement(folder)
        statement_sha256 = envelope.payload_sha256
        written = {**tags, **lineage_tags(parse_statement(envelope)), STATEMENT: statement_sha256, STATE: "ready"}
        with self._calls(principal, "write", "version", f"{name}/{version}") as client:
            model = client.get_model_version(name, version)
            if model.tags.get(STATE) == "ready" and model.tags.get(STATEMENT) == statement_sha256:
                return self._fetched(client, model)
            if model.tags.get(STATE) != "reserved":
                raise Conflict(f"{name} {version} is {model.tags.get(STATE)}", hint="versions are never filled twice")
            with self._act(principal, "finish", f"{name}/{version}", (statement_sha256,)):
                log_values(client, model.run_id, metrics, params, now=self._clock.now() // 1_000)
                client.log_artifacts(model.run_id, str(folder), FOLDER)
                for key, text in written.items():
                    client.set_model_version_tag(name, version, key, str(text))
                client.set_terminated(model.run_id, "FINISHED", end_time=self._clock.now() // 1_000)
            return self._fetched(client, client.get_model_version(name, version))

    def abandon(
        self,
        name: str,
        version: str,
        principal: Principal,
        *,
        metrics: Mapping[str, float] | None = None,
        evidence: Path | None = None,
    ) -> None:
        """Mark a reserved version as failed; its run stays, with the metrics that it failed on and the evidence."""
        self._authorise(principal, "write", "abandon", f"{name}/{version}")
        with self._calls(principal, "write", "version", f"{name}/{version}") as client:
            model = client.get_model_version(name, version)
            if model.tags.get(STATE) != "reserved":
                raise Conflict(f"{name} {version} is {model.tags.get(STATE)}", hint="only a reserved version can fail")
            with self._act(principal, "abandon", f"{name}/{version}"):
                log_values(client, model.run_id, metrics or {}, {}, now=self._clock.now() // 1_000)
                if evidence is not None:
                    client.log_artifact(model.run_id, str(evidence))
                client.set_model_version_tag(name, version, STATE, "failed")
                client.set_terminated(model.run_id, "FAILED", end_time=self._clock.now() // 1_000)

    def attach(self, name: str, version: str, folder: Path, place: str, principal: Principal) -> None:
        """Keep the files of a folder as `place` in the run of a ready version: beside what is signed, no part of it."""
        if place == FOLDER:
            raise InvalidValue("place", f"{FOLDER!r} holds exactly the signed files", hint="choose another name")
        self._authorise(principal, "write", f"attach.{place}", f"{name}/{version}")
        with self._calls(principal, "write", "version", f"{name}/{version}") as client:
            model = self._ready(client, name, version)
            with self._act(principal, f"attach.{place}", f"{name}/{version}", _refs(model)):
                client.log_artifacts(model.run_id, str(folder), place)

    def record_stages(
        self, name: str, run_id: str | None, stages: Mapping[str, Mapping[str, object]], principal: Principal
    ) -> None:
        """Log what the stages of a training were, numbers as metrics, the rest as tags `stage.<name>.<what>`.

        Without `run_id` the training came to no version: it gets a failed run of its own.
        """
        self._authorise(principal, "write", "record_stages", name)
        metrics: dict[str, float] = {}
        tags: dict[str, str] = {}
        for stage, facts in stages.items():
            for what, value in facts.items():
                if isinstance(value, int | float):
                    metrics[f"stage.{stage}.{what}"] = float(value)
                else:
                    tags[f"stage.{stage}.{what}"] = str(value)
        with self._calls(principal, "write", "model", name) as client:
            if run_id is None:
                experiment = experiment_of(client, name, self._artifacts)
                run = client.create_run(experiment, run_name=name, tags={"mlflow.user": principal.sub})
                client.set_terminated(run.info.run_id, "FAILED", end_time=self._clock.now() // 1_000)
                run_id = str(run.info.run_id)
            log_values(client, run_id, metrics, {}, now=self._clock.now() // 1_000, tags=tags)

    def alias(self, name: str, alias: str, version: str, principal: Principal) -> None:
        """Point an alias at a ready version. The routing record decides what serves; aliases follow it."""
        if alias not in ALIASES:
            raise InvalidValue("alias", f"{alias!r}", hint=f"one of {', '.join(ALIASES)}")
        self._authorise(principal, "write", f"alias.{alias}", f"{name}/{version}")
        with self._calls(principal, "write", "version", f"{name}/{version}") as client:
            model = self._ready(client, name, version)
            with self._act(principal, f"alias.{alias}", f"{name}/{version}", _refs(model)):
                client.set_registered_model_alias(name, alias, version)

    def move(self, name: str, version: str, environment: str, principal: Principal) -> None:
        """Move a ready version to staging or production."""
        if environment not in ENVIRONMENTS:
            raise InvalidValue("environment", f"{environment!r}", hint=f"one of {', '.join(ENVIRONMENTS)}")
        self._authorise(principal, "write", f"move.{environment}", f"{name}/{version}")
        with self._calls(principal, "write", "version", f"{name}/{version}") as client:
            model = self._ready(client, name, version)
            with self._act(principal, f"move.{environment}", f"{name}/{version}", _refs(model)):
                client.set_model_version_tag(name, version, ENVIRONMENT, environment)

    def resolve(self, name: str, alias_or_version: str, principal: Principal) -> RegisteredVersion:
        """Return a ready version by alias (`@champion` or `champion`) or number, its files on this machine."""
        wanted = alias_or_version.removeprefix("@")
        self._authorise(principal, "read", "resolve", f"{name}/{wanted}")
        with self._calls(principal, "read", "version", f"{name}/{wanted}") as client:
            if wanted.isdigit():
                model = self._ready(client, name, wanted)
            else:
                model = client.get_model_version_by_alias(name, wanted)
                model = self._ready(client, name, str(model.version))
            found = self._fetched(client, model)
        self._record(principal, "resolve", f"{name}/{wanted}", "done", refs=_refs(model))
        return found

    def versions(self, name: str, principal: Principal) -> list[RegisteredVersion]:
        """Return all versions of a model, newest first; an unknown model has none."""
        self._authorise(principal, "read", "versions", name)
        with self._calls(principal, "read", "model", name) as client:
            models = client.search_model_versions(f"name = '{model_name(name)}'")
            # a search leaves out aliases
            found = [listed(client.get_model_version(name, model.version), self._downloads) for model in models]
        return sorted(found, key=lambda item: int(item.version), reverse=True)

    @contextmanager
    def _calls(self, principal: Principal, verb: str, kind: str, what: str) -> Iterator[Any]:
        token = self._tokens(principal, verb) if self._tokens is not None else ""
        with self._mlflow.calls(kind, what, token) as client:
            yield client

    def _fetched(self, client: Any, model: Any) -> RegisteredVersion:
        return fetched(client, model, self._downloads, uri=self._mlflow.uri)

    def _ready(self, client: Any, name: str, version: str) -> Any:
        model = client.get_model_version(name, version)
        if model.tags.get(STATE) != "ready":
            raise Conflict(f"{name} {version} is {model.tags.get(STATE)}, not ready", hint="headway models list")
        return model

    def _authorise(self, principal: Principal, verb: str, action: str, resource: str) -> None:
        model_name(resource.partition("/")[0])
        if self._clock.now() >= principal.expires:
            raise Unauthenticated("the identity has expired", hint="headway login")
        role = READER if verb == "read" else CI
        if not role.held_by(principal):
            self._record(principal, action, resource, "denied")
        role.require(principal)

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


def registry_from(settings: Settings, audit: AuditSink, clock: Clock, tokens: Tokens | None = None) -> Registry:
    """Return the registry of an installation; files that it serves by HTTP are fetched to `home/models`.

    Without `tokens`, calls carry what MLflow's own settings say (`MLFLOW_TRACKING_TOKEN`).
    """
    return Registry(settings.mlflow_uri, audit, clock, downloads=settings.home / "models", tokens=tokens)


def _refs(model: Any) -> tuple[str, ...]:
    digest = model.tags.get(STATEMENT, "")
    return (digest,) if digest else ()
