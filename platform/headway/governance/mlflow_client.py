"""MLflow's client: configured by environment, connected at first use, its errors turned into ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from headway.core.errors import Conflict, Forbidden, NotFound, PlatformError, Unauthenticated, Unavailable

_MLFLOW_ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
"""MLflow is configured by environment only; whatever the installation set itself stays."""
_TOKEN: ContextVar[str] = ContextVar("headway_mlflow_token", default="")
"""The token of the call in progress: MLflow's own setting is one token for a whole process."""


class Mlflow:
    """One tracking server or database; nothing is imported or opened before the first call."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._connected: Any = None

    @contextmanager
    def calls(self, kind: str, what: str, token: str = "") -> Iterator[Any]:
        """Give the client, which calls with `token`, and turn MLflow's errors into ours."""
        if self._connected is None:
            self._connected = _client(self.uri)
        from mlflow.exceptions import MlflowException

        before = _TOKEN.set(token)
        try:
            yield self._connected
        except MlflowException as error:
            raise _translated(error, kind, what) from error
        except OSError as error:  # artefacts come by plain HTTP, whose errors carry the response
            response = getattr(error, "response", None)
            if response is None:
                raise
            raise _of_status(int(response.status_code), str(error), kind, what) from error
        finally:
            _TOKEN.reset(before)


def _client(uri: str) -> Any:
    for key, value in _MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as providers

    if not any(isinstance(provider, _TokenHeader) for provider in providers):
        providers.register(_TokenHeader)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


class _TokenHeader:
    """MLflow's plug-in for headers: the token of the call in progress, and none outside of one."""

    def in_context(self) -> bool:
        """Whether a call of ours is in progress."""
        return bool(_TOKEN.get())

    def request_headers(self) -> dict[str, str]:
        """Return the identity."""
        return {"Authorization": f"Bearer {_TOKEN.get()}"}


def download_folder(client: Any, uri: str, run_id: str, folder: str, target: Path) -> None:
    """Fetch an artefact folder of a run into `target`, file by file: MLflow's own way would lose the call's token."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=uri)
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        for found in repository.list_artifacts(place):
            if found.is_dir:
                waiting.append(found.path)
                continue
            path = target / Path(found.path).relative_to(folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            repository._download_file(found.path, str(path))  # the method that plug-ins implement


def unless_exists(create: Callable[[], object]) -> None:
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
    if code == "UNAUTHENTICATED":
        return Unauthenticated(f"the registry knows nobody by this token: {error.message}")
    if code == "PERMISSION_DENIED":
        return Forbidden(f"the registry refused {what}: {error.message}")
    return PlatformError(f"the registry refused {what}: {error.message}", hint="headway status")


def _of_status(status: int, text: str, kind: str, what: str) -> Exception:
    if status == 404:
        return NotFound(kind, what)
    if status == 401:
        return Unauthenticated(f"the registry knows nobody by this token: {text}")
    if status == 403:
        return Forbidden(f"the registry refused {what}: {text}")
    return PlatformError(f"the registry refused {what}: {text}", hint="headway status")


def experiment_of(client: Any, name: str, artifacts: Path | None) -> str:
    """Return the id of a model's experiment, made where it is new."""
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if artifacts is None else (artifacts / name).absolute().as_uri()
        unless_exists(lambda: client.create_experiment(name, artifact_location=location))
        found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def log_values(
    client: Any,
    run_id: str,
    metrics: Mapping[str, float],
    params: Mapping[str, object],
    *,
    now: int,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Record all values in one call; `now` is in UTC milliseconds."""
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(
        run_id,
        metrics=[Metric(key, float(number), now, 0) for key, number in metrics.items()],
        params=[Param(key, str(value)) for key, value in params.items()],
        tags=[RunTag(key, text) for key, text in (tags or {}).items()],
    )
