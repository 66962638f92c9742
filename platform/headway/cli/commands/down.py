"""`headway down`: stop the local platform and leave no process and no port."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, progress, show, wanted_settings_of


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def down(
        context: typer.Context,
        force: Annotated[
            bool, typer.Option("--force", help="Set an unreadable state file aside; find processes by their marks.")
        ] = False,
        json_output: JsonFlag = False,
    ) -> None:
        """Stop every process of the platform; data, keys and logs stay."""
        from headway.cli.output import say
        from headway.cluster import streams
        from headway.cluster.local import lifecycle

        settings = wanted_settings_of(context)
        with progress(json_output) as drawn:
            streams.settle(settings, drawn)
            stopped = lifecycle.down(settings, drawn, force=force)

        def human(_: object) -> None:
            say(f"Headway is down: {stopped} processes stopped." if stopped else "Headway was not up.")

        show({"home": str(settings.home), "stopped": stopped}, json_output, human)
