"""`headway train`: from a snapshot of the lake to a signed, registered candidate."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, installation, progress, show


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
        json_output: JsonFlag = False,
    ) -> None:
        """Train, evaluate, gate, sign and register a model; exit status 5 when a gate fails."""
        from headway.cluster import training
        from headway.core.times import parse_time

        at = installation(context)
        moment = None if as_of is None else parse_time(as_of, field="--as-of")
        with progress(json_output) as drawn:
            result = training.train(at, use_case, at.person(), drawn, as_of=moment)
        show(result, json_output)
