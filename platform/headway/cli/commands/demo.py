"""`headway demo`: the main job from history to live decisions, and round the loop."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, progress, show, wanted_settings_of


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def demo(
        context: typer.Context,
        use_case: Annotated[
            list[str] | None, typer.Option("--use-case", help="A use case; repeat it. Default: all.")
        ] = None,
        story: Annotated[
            list[str] | None, typer.Option("--story", help="core | drift; repeat it. Default: what `make demo` shows.")
        ] = None,
        requests: Annotated[
            int | None, typer.Option("--requests", min=1, help="Decisions of the core story; default: 10,100.")
        ] = None,
        json_output: JsonFlag = False,
    ) -> None:
        """Show use cases from contract to live decisions, measured against the contract."""
        from headway.cluster.demo.run import run
        from headway.cluster.demo.stories import REQUESTS

        with progress(json_output) as drawn:
            result = run(
                wanted_settings_of(context),
                use_cases=use_case,
                stories=story,
                progress=drawn,
                requests=requests or REQUESTS,
            )
        show(result.report, json_output, lambda _: result.print_scoreboard())
        raise typer.Exit(0 if result.passed else 1)
