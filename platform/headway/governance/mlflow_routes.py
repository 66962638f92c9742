"""The routes of the MLflow server that are let through, and the right that each asks for. All others are refused.

MLflow grows routes with every release: prompts, gateways, jobs, an assistant that runs commands. A list of what is
forbidden would age; this list of what the registry needs does not. Nothing on it deletes or renames: versions and runs
are evidence. What a browser asks for (`ajax-api`, the pages' files) is only read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Right = Literal["open", "read", "write"]
MAX_BODY = 2**20
"""Bytes of a JSON body; MLflow's own bound of a batch."""
MAX_UPLOAD = 2**30
"""Bytes of an artefact."""
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,254}"
_PATH = rf"{_PART}(?:/{_PART}){{0,15}}"
_PLAIN = re.compile(rf"/(?:{_PATH})?")

_READ_API = {
    "2.0/mlflow": {
        "experiments/get": "GET",
        "experiments/get-by-name": "GET",
        "experiments/search": "GET POST",
        "runs/get": "GET",
        "runs/search": "POST",
        "metrics/get-history": "GET",
        "metrics/get-history-bulk": "GET",
        "metrics/get-history-bulk-interval": "GET",
        "artifacts/list": "GET",
        "registered-models/get": "GET",
        "registered-models/search": "GET",
        "registered-models/alias": "GET",
        "registered-models/get-latest-versions": "GET POST",
        "model-versions/get": "GET",
        "model-versions/search": "GET",
        "model-versions/get-download-uri": "GET",
        "logged-models/search": "POST",
        "logged-models/{part}": "GET",
        "logged-models/{part}/artifacts/directories": "GET",
    },
    "2.0/mlflow-artifacts": {"artifacts": "GET", "artifacts/{path}": "GET"},
    "3.0/mlflow": {"server-info": "GET"},
}
"""Under `/api` for programs and `/ajax-api` for browsers."""
_READ_PAGES = {
    "/": "GET",
    "/version": "GET",
    "/static-files/{path}": "GET",
    "/get-artifact": "GET",
    "/model-versions/get-artifact": "GET",
}
_WRITE_API = {
    "2.0/mlflow": {
        "experiments/create": "POST",
        "experiments/set-experiment-tag": "POST",
        "runs/create": "POST",
        "runs/update": "POST",
        "runs/set-tag": "POST",
        "runs/log-metric": "POST",
        "runs/log-parameter": "POST",
        "runs/log-batch": "POST",
        "runs/log-inputs": "POST",
        "runs/log-model": "POST",
        "runs/outputs": "POST",
        "logged-models": "POST",
        "logged-models/{part}": "PATCH",
        "logged-models/{part}/params": "POST",
        "logged-models/{part}/tags": "PATCH",
        "registered-models/create": "POST",
        "registered-models/alias": "POST",
        "registered-models/set-tag": "POST",
        "model-versions/create": "POST",
        "model-versions/set-tag": "POST",
    },
    "2.0/mlflow-artifacts": {"artifacts/{path}": "PUT"},
}
"""Under `/api` only: people look, programs write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A path, the methods that it takes, and who may use it."""

    name: str
    """For the audit log: `model-versions/create`."""
    methods: frozenset[str]
    path: re.Pattern[str]
    right: Right

    @property
    def streamed(self) -> bool:
        """Whether its body is a file and not a message."""
        return "PUT" in self.methods

    @property
    def max_body(self) -> int:
        """Bytes that a request may send."""
        return MAX_UPLOAD if self.streamed else MAX_BODY


def routes() -> tuple[Route, ...]:
    """Return every route that is let through."""
    listed = [_route("/health", "GET", "open", "health")]
    listed += [_route(path, methods, "read", path.strip("/") or "ui") for path, methods in _READ_PAGES.items()]
    for right, prefixes, api in (("read", ("/api", "/ajax-api"), _READ_API), ("write", ("/api",), _WRITE_API)):
        for prefix in prefixes:
            for family, paths in api.items():
                listed += [
                    _route(f"{prefix}/{family}/{path}", methods, "read" if right == "read" else "write", path)
                    for path, methods in paths.items()
                ]
    return tuple(listed)


def find(listed: tuple[Route, ...], method: str, path: str) -> Route | None:
    """Return the route of a plain path, None where there is none."""
    return next((route for route in listed if method in route.methods and route.path.fullmatch(path)), None)


def plain_path(path: str, raw: bytes, root: str) -> str | None:
    """Return a request's path if it has one spelling only, None otherwise.

    Servers disagree on what `//`, `/./`, `%2e`, `;` and a closing slash mean; a path that needs none of them leaves
    nothing to disagree on.
    """
    if root or raw != path.encode("utf-8", "surrogateescape") or _PLAIN.fullmatch(path) is None:
        return None
    return path


def _route(path: str, methods: str, right: Right, name: str) -> Route:
    pattern = re.escape(path).replace(r"\{part\}", _PART).replace(r"\{path\}", _PATH)
    return Route(name=name, methods=frozenset(methods.split()), path=re.compile(pattern), right=right)
