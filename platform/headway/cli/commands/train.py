"""`headway train`: from a snapshot of the lake to a signed, registered candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, installation, progress, show
from headway.core.errors import InvalidValue

if TYPE_CHECKING:
    from headway.training.backtest import Backtest


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def train(
        context: typer.Context,
        use_case: UseCase,
        as_of: Annotated[
            str | None,
            typer.Option(help="Train with what was known then (RFC 3339); default: now, or as a stopped run."),
        ] = None,
        without_champion: Annotated[
            str,
            typer.Option(metavar="REASON", help="Leave the champion out of the gates; the reason is in the report."),
        ] = "",
        backtest: Annotated[
            int, typer.Option(metavar="N", help="Train at N earlier times instead, measure each, and register nothing.")
        ] = 0,
        every: Annotated[
            str | None, typer.Option(help="Time between the folds of a backtest; default: the evaluation range.")
        ] = None,
        json_output: JsonFlag = False,
    ) -> None:
        """Train, evaluate, gate, sign and register a model; exit status 5 when a gate fails."""
        from headway.cluster import training
        from headway.core.times import parse_time

        if every is not None and not backtest:
            raise InvalidValue("--every", "is of a backtest", hint="add --backtest N")

        at = installation(context)
        moment = None if as_of is None else parse_time(as_of, field="--as-of")
        if backtest:
            from headway.cluster.backtest import walk_forward

            end = at.clock.now() if moment is None else moment
            with progress(json_output) as drawn:
                walked = walk_forward(at, use_case, at.person(), drawn, as_of=end, folds=backtest, every=every)
            show(walked, json_output, _print_folds)
            return
        with progress(json_output) as drawn:
            result = training.train(at, use_case, at.person(), drawn, as_of=moment, without_champion=without_champion)
        show(result, json_output)


def _print_folds(walked: Backtest) -> None:
    from headway.cli.output import table

    names = list(walked.metrics)
    rows = [[fold.as_of, fold.rows, fold.evaluation_rows, *(f"{fold.metrics[name].value:.4f}" for name in names)]
            for fold in walked.folds]  # fmt: skip
    rows += [[kind, "", "", *(f"{getattr(walked.metrics[name], kind):.4f}" for name in names)]
             for kind in ("mean", "worst", "slope")]  # fmt: skip
    table(["AS OF", "ROWS", "EVALUATED", *names], rows)
