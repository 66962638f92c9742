"""Serving: one replica process that authenticates, batches, reads features, predicts and records a decision."""

from __future__ import annotations

from typing import Any


def application(use_case: str, **options: Any) -> Any:
    """Return the Ray Serve application of a use case; `serve_apps/<use case>/__init__.py` calls it.

    `options` override deployment options, as a Serve configuration would.
    """
    from headway.serving.app import build

    return build(use_case, **options)


__all__ = ["application"]
