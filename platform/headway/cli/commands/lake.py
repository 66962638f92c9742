"""`headway lake`: the tables of the lake, their snapshots, rows and files, and their upkeep."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, installation, person, progress, settings_of, show

Tables = Annotated[list[str] | None, typer.Argument(metavar="[TABLE]…", help="Tables; none: all.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at the Iceberg lake, merge its files, let old snapshots go.", no_args_is_help=True)
    app.add_typer(group, name="lake")
    group.command("status")(status)
    group.command("compact")(compact)
    group.command("expire")(expire)


def status(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Show every table with its newest snapshot."""
    from headway.cluster.lake_status import lake_status

    settings = settings_of(context)
    show(lake_status(settings, person(settings)), json_output)


def compact(context: typer.Context, tables: Tables = None, json_output: JsonFlag = False) -> None:
    """Merge all small files; what is appended meanwhile waits for a second at most."""
    from headway.cluster import lake

    at = installation(context)
    with progress(json_output) as drawn:
        result = lake.compact(at, at.person(), drawn, tables or ())
    show(result, json_output)


def expire(
    context: typer.Context,
    tables: Tables = None,
    newest: Annotated[int, typer.Option(min=1, help="Snapshots that stay whatever their age.")] = 20,
    hours: Annotated[int, typer.Option(min=0, help="Hours of which the last snapshot stays.")] = 24,
    days: Annotated[int, typer.Option(min=0, help="Days of which the last snapshot stays.")] = 30,
    json_output: JsonFlag = False,
) -> None:
    """Let old snapshots go that no training or version pins, and delete files that nothing has any more."""
    from headway.cluster import lake

    at = installation(context)
    with progress(json_output) as drawn:
        result = lake.expire(at, at.person(), drawn, tables or (), newest=newest, hours=hours, days=days)
    show(result, json_output)
