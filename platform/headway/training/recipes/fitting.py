"""Which recipe fits how: the one place that knows them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headway.training.definitions import OnnxImport, Recipe
from headway.training.fitted import Fitted

if TYPE_CHECKING:
    import ray.data


def fit(
    recipe: Recipe,
    train: ray.data.Dataset,
    *,
    features: tuple[str, ...],
    label: str,
    seed: int,
    run_name: str,
    storage: Path,
    project: Path,
    train_end: int,
) -> Fitted:
    """Return what the recipe makes of the training rows; the arguments are those of `recipes.xgboost.fit`.

    Args:
        recipe: Any.
        train: Training rows.
        features: Order of the matrix's columns.
        label: Label column.
        seed: Of everything drawn.
        run_name: Unique per training.
        storage: Folder for checkpoints.
        project: Folder with the definitions, where imported models lie.
        train_end: End of the training range, UTC microseconds.
    """
    if isinstance(recipe, OnnxImport):
        from headway.training.recipes.onnx_import import fit as read

        return read(recipe, project=project, features=features)
    from headway.training.recipes.xgboost import fit as train_trees

    return train_trees(
        recipe,
        train,
        features=features,
        label=label,
        seed=seed,
        run_name=run_name,
        storage=storage,
        train_end=train_end,
    )
