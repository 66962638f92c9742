"""`headway deploy`: put a use case on line with its signed contract and its champion."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, UseCase, person, progress, running_settings_of, show


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def deploy(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
        """Deploy by a rolling update; refused where the contract is unsigned or altered."""
        from headway.cluster import compose

        settings = running_settings_of(context)
        with progress(json_output) as drawn:
            result = compose.deploy(settings, use_case, principal=person(settings), progress=drawn)
        show(result, json_output)
