"""Backtests a use case's training on the running platform."""

from __future__ import annotations

from headway.cluster.compose import Installation
from headway.cluster.training_acts import trainer
from headway.core import ray_session
from headway.core.ids import uuid7
from headway.core.progress import Progress
from headway.core.types import Principal
from headway.training.backtest import Backtest, backtest, on_ray


def walk_forward(
    at: Installation,
    use_case: str,
    principal: Principal,
    progress: Progress,
    *,
    as_of: int,
    folds: int,
    every: str | None = None,
) -> Backtest:
    """Train and measure the use case's job at `folds` times up to `as_of`; nothing is registered."""
    principal.require("train", at.project.require(use_case))
    job, worker = at.job(use_case), trainer(at, use_case)
    ray_session.connect(at.settings)
    at.audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="train.backtest",
        resource=f"use_case:{use_case}",
        purpose=principal.purpose,
        outcome=f"started: {folds} folds",
    )
    run_name = f"{use_case}-backtest-{uuid7(at.clock.now())}"
    return backtest(
        job,
        as_of=as_of,
        folds=folds,
        every=every,
        reader=at.reader,
        principal=worker,
        progress=progress,
        fit_fold=on_ray(job, at.settings.project, at.settings.home / "training" / "checkpoints", run_name),
    )
