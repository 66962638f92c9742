"""`headway deploy`: put a use case on line with its signed contract and its champion."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, UseCase, installation, progress, show


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def deploy(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
        """Deploy by a rolling update; refused where the contract is unsigned or altered."""
        from headway.cluster import deploy as rollout

        at = installation(context)
        with progress(json_output) as drawn:
            result = rollout.deploy(at, use_case, at.person(), drawn)
        show(result, json_output)
