"""Headway: an enterprise ML platform on Ray.

The public names that definitions use load on first use, so that `import headway` costs replicas and the command line
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.client import Client as Client
    from headway.features.aggregates import count as count
    from headway.features.aggregates import distinct as distinct
    from headway.features.aggregates import largest as largest
    from headway.features.aggregates import last as last
    from headway.features.aggregates import mean as mean
    from headway.features.aggregates import since_first as since_first
    from headway.features.aggregates import since_last as since_last
    from headway.features.aggregates import smallest as smallest
    from headway.features.aggregates import std as std
    from headway.features.aggregates import total as total
    from headway.features.definitions import Entity as Entity
    from headway.features.definitions import EventSource as EventSource
    from headway.features.definitions import FeatureService as FeatureService
    from headway.features.definitions import RowView as RowView
    from headway.features.definitions import WindowView as WindowView
    from headway.features.history import History as History
    from headway.features.transformations import sql_transformation as sql_transformation
    from headway.features.transformations import transformation as transformation
    from headway.monitoring.definitions import Monitor as Monitor
    from headway.serving.fallback import Rules as Rules
    from headway.training.definitions import Gate as Gate
    from headway.training.definitions import TrainingJob as TrainingJob
    from headway.training.definitions import XGBoostRecipe as XGBoostRecipe

__version__ = "0.1.0"

_HOMES = {
    "headway.features.definitions": ("Entity", "EventSource", "FeatureService", "RowView", "WindowView"),
    "headway.features.transformations": ("transformation", "sql_transformation"),
    "headway.features.aggregates": (
        *("count", "total", "mean", "std", "distinct", "smallest", "largest", "last", "since_first", "since_last"),
    ),
    "headway.features.history": ("History",),
    "headway.monitoring.definitions": ("Monitor",),
    "headway.client": ("Client",),
    "headway.serving.fallback": ("Rules",),
    "headway.training.definitions": ("Gate", "TrainingJob", "XGBoostRecipe"),
}
_NAMES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from the room that defines it."""
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*_NAMES, "__version__"])
