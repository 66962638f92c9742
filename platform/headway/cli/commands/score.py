"""`headway score`: score a batch on Ray Data into the lake, by the same kernel that serves."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, installation, progress, show, span


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def score(
        context: typer.Context,
        use_case: UseCase,
        since: Annotated[str | None, typer.Option(help="First decision time (RFC 3339).")] = None,
        until: Annotated[str | None, typer.Option(help="End of the decision times (RFC 3339).")] = None,
        json_output: JsonFlag = False,
    ) -> None:
        """Score the use case's decisions in a range of time with its champion."""
        from headway.cluster import score as scoring

        at = installation(context)
        first, end = span(since, until)
        with progress(json_output) as drawn:
            result = scoring.score(at, use_case, at.person(), drawn, since=first, until=end)
        show(result, json_output)
