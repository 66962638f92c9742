"""`headway lake`: the tables of the lake, their snapshots, rows and files."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, person, settings_of, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at the Iceberg lake.", no_args_is_help=True)
    app.add_typer(group, name="lake")
    group.callback()(_group)
    group.command("status")(status)


def _group() -> None:
    """Keep `status` a subcommand though it is the only one."""


def status(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Show every table with its newest snapshot."""
    from headway.cluster.lake_status import lake_status

    settings = settings_of(context)
    show(lake_status(settings, person(settings)), json_output)
