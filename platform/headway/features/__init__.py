"""Features: definitions, the kernel that evaluates them, and the stores on both sides of it (lake and online).

`training_set`, for notebooks and jobs, loads on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.features.training_sets import training_set as training_set


def __getattr__(name: str) -> Any:
    """Load the public function from the module that defines it."""
    if name == "training_set":
        from headway.features.training_sets import training_set

        return training_set
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
