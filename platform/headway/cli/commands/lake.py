"""`headway lake`: the tables of the lake, their snapshots, rows and files, and their upkeep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.context import JsonFlag, installation, person, progress, settings_of, show

if TYPE_CHECKING:
    from headway.cluster.lake import Cleaned
    from headway.cluster.lake_status import TableStatus
    from headway.features.lake.compaction import Compacted

_EMPTY = "the lake has no tables yet: they are made with the first ingestion"
Tables = Annotated[list[str] | None, typer.Argument(metavar="[TABLE]…", help="Tables; none: all.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at the Iceberg lake, merge its files, let old snapshots go.", no_args_is_help=True)
    app.add_typer(group, name="lake")
    group.command("status")(status)
    group.command("compact")(compact)
    group.command("expire")(expire)


def status(context: typer.Context, tables: Tables = None, json_output: JsonFlag = False) -> None:
    """Show tables with their newest snapshot, also while the platform is down."""
    from headway.cluster.lake_status import lake_status

    settings = settings_of(context)
    show(lake_status(settings, person(settings), tables or ()), json_output, _print_status)


def compact(context: typer.Context, tables: Tables = None, json_output: JsonFlag = False) -> None:
    """Merge all small files; appends go on meanwhile."""
    from headway.cluster import lake

    at = installation(context)
    with progress(json_output) as drawn:
        result = lake.compact(at, at.person(), drawn, tables or ())
    show(result, json_output, _print_compacted)


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
    show(result, json_output, _print_cleaned)


def _print_status(tables: Sequence[TableStatus]) -> None:
    from headway.cli.output import say, table

    if not tables:
        say(_EMPTY)
        return
    heads = ["table", "rows", "files", "MiB", "small", "snapshots", "pinned", "waiting", "newest", "committed"]
    rows = [
        [
            t.table,
            f"{t.rows:,}",
            t.files,
            t.mebibytes,
            t.small,
            t.snapshots,
            t.pinned,
            t.waiting,
            t.snapshot_id,
            t.committed,
        ]
        for t in tables
    ]
    table(heads, rows)


def _print_compacted(done: Mapping[str, Compacted]) -> None:
    from headway.cli.output import say, table

    if not done:
        say(_EMPTY)
        return
    rows = [[name, c.merged, c.written, f"{c.rows:,}", c.mebibytes] for name, c in done.items()]
    table(["table", "files merged", "files written", "rows", "MiB"], rows)


def _print_cleaned(done: Mapping[str, Cleaned]) -> None:
    from headway.cli.output import say, table

    if not done:
        say(_EMPTY)
        return
    rows = [[name, c.expired.snapshots, c.expired.released, c.expired.removed, c.orphans] for name, c in done.items()]
    table(["table", "snapshots gone", "files that wait", "files deleted", "orphans deleted"], rows)
