"""`headway monitor`: drift against the reference profile, and the alarms the loop acted on."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, UseCase, person, running_settings_of, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at drift and alarms.", no_args_is_help=True)
    app.add_typer(group, name="monitor")
    group.command("drift")(drift)
    group.command("alarms")(alarms)


def drift(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """Show the newest statistics per feature and of the score."""
    from headway.cluster import compose

    settings = running_settings_of(context)
    show(compose.drift(settings, use_case, principal=person(settings)), json_output)


def alarms(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """Show alarms and what the loop did about each."""
    from headway.cluster import compose

    settings = running_settings_of(context)
    show(compose.alarms(settings, use_case, principal=person(settings)), json_output)
