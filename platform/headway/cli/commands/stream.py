"""`headway stream`: events from topics into lake and online store, and how far that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.commands.feed import feed
from headway.cli.context import JsonFlag, installation, progress, show

if TYPE_CHECKING:
    from headway.cluster.stream_status import SourceStatus

Sources = Annotated[
    list[str] | None, typer.Argument(metavar="[SOURCE]…", help="Sources; none: all.", show_default=False)
]
_COLUMNS = ("SOURCE", "PARTITION", "STATE", "POSITION", "LAG", "PENDING", "COMPLETE UP TO", "ROWS", "DEAD", "LOST")


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Feed lake and online store from event streams.", no_args_is_help=True)
    app.add_typer(group, name="stream")
    group.command("run")(run)
    group.command("status")(status)
    group.command("stop")(stop)
    group.command("skip")(skip)
    group.command("feed")(feed)


def run(
    context: typer.Context,
    sources: Sources = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Of topics that are made now; default: 4.", show_default=False)
    ] = None,
    actors: Annotated[int, typer.Option(min=1, help="Processes that share a topic's partitions.")] = 1,
    json_output: JsonFlag = False,
) -> None:
    """Start streams: the topic of a source has its name, and is made where it is missing. Repeating it is harmless."""
    from headway.cli.output import table
    from headway.cluster import streams

    at = installation(context)
    with progress(json_output) as drawn:
        started = streams.run(at, at.person(), drawn, sources or (), partitions=partitions, actors=actors)

    def human(_: object) -> None:
        rows = [(one.source, one.partitions, one.actors, ", ".join(one.views)) for one in started]
        table(("SOURCE", "PARTITIONS", "ACTORS", "VIEWS"), rows)

    show(started, json_output, human)


def status(
    context: typer.Context,
    sources: Sources = None,
    sizes: Annotated[bool, typer.Option("--sizes", help="Also count what views hold online; reads all of it.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Show lag, watermark, dead letters and alarms; exit status 1 where a budget is exceeded."""
    from headway.cluster.stream_status import status as examine

    at = installation(context)
    found = examine(at, at.person(), sources or (), sizes=sizes)
    show(found, json_output, lambda _: _print(found))
    raise typer.Exit(1 if any(one.alarms or one.error for one in found) else 0)


def stop(context: typer.Context, sources: Sources = None, json_output: JsonFlag = False) -> None:
    """Stop streams once what is pending is in the lake; events that come later wait in the topic."""
    from headway.cli.output import say
    from headway.cluster import streams

    at = installation(context)
    with progress(json_output) as drawn:
        stopped = streams.stop(at, at.person(), drawn, sources or ())
    show({"stopped": stopped}, json_output, lambda _: say(f"stopped: {', '.join(stopped) or 'none ran'}"))


def skip(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A source whose stream runs.")],
    json_output: JsonFlag = False,
) -> None:
    """Go on after messages that the topic dropped before they were read; they are counted as lost."""
    from headway.cli.output import say
    from headway.cluster import streams

    at = installation(context)
    lost = streams.skip(at, at.person(), source)
    show({"source": source, "lost": lost}, json_output, lambda _: say(f"{source}: {lost:,} messages skipped"))


def _print(found: list[SourceStatus]) -> None:
    from headway.cli.output import say, table
    from headway.core.times import format_time

    rows: list[tuple[object, ...]] = []
    for one in found:
        rows += [
            (
                *(one.source, item.progress.partition, item.state, f"{item.progress.position:,}"),
                *("" if item.end < 0 else f"{item.lag:,}", f"{item.progress.pending_rows:,}"),
                format_time(item.progress.watermark) if item.progress.watermark else "",
                *(f"{item.progress.rows:,}", f"{item.progress.dead:,}", f"{item.progress.lost:,}"),
            )
            for item in one.partitions
        ] or [(one.source, "", one.state)]
    table(_COLUMNS, [(*row, *("",) * (len(_COLUMNS) - len(row))) for row in rows])
    for one in found:
        for size in one.sizes:
            say(f"{one.source}: {size.view}: {size.keys:,} keys, {size.bytes:,} bytes online")
        errors = [f"partition {item.progress.partition}: {item.error}" for item in one.partitions if item.error]
        for line in dict.fromkeys((*filter(None, [one.error]), *errors, *one.alarms)):
            say(f"{one.source}: {line}")
