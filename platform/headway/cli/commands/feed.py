"""`headway stream feed`: files, a database's query or its change events into the topic of a source."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.context import JsonFlag, installation, progress, show

if TYPE_CHECKING:
    from headway.cluster.compose import Installation
    from headway.features.feeds.changes import Changes
    from headway.features.feeds.chunk import Feed
    from headway.features.feeds.columns import Columns
    from headway.features.feeds.run import FeedReport

_DATABASE = "HEADWAY_FEED_DATABASE"
"""A URL with a password does not belong on a command line."""
_INPUT = "-"
_LINES = (".json", ".jsonl", ".ndjson")


def feed(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A source of the project whose stream runs.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]…", help="Parquet and CSV files, or folders of them.", show_default=False),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help=f"URL of a database: dialect+driver://…; or in {_DATABASE}.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="A SELECT whose columns are the source's.")] = None,
    watermark: Annotated[str | None, typer.Option(help="Column of the query that only grows.")] = None,
    lookback: Annotated[
        str | None, typer.Option(help="How far behind the watermark late rows may lie: 10m, or a number.")
    ] = None,
    changes: Annotated[
        str | None,
        typer.Option(metavar="refuse|skip", help="Read change events; what becomes of updates and deletes."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Read change events of this topic.")] = None,
    time_unit: Annotated[str, typer.Option(help="Of numeric times in change events without schema: s, ms, us.")] = "us",
    rename: Annotated[
        list[str] | None, typer.Option(metavar="THERE=HERE", help="A column under another name.", show_default=False)
    ] = None,
    known_at_event: Annotated[
        bool, typer.Option(help="Events without a known_time were known when they happened: for a past only.")
    ] = False,
    every: Annotated[str | None, typer.Option(help="Read again each 10s, 5m, …, until interrupted.")] = None,
    restart: Annotated[bool, typer.Option(help="Begin anew; what the stream has already counts once.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Bring rows into a source's stream, from where the last run ended; exit status 1 where some were refused."""
    from headway.cluster import feeds
    from headway.core.times import SECOND, parse_duration
    from headway.features.feeds.columns import Columns
    from headway.features.named import source_named

    at = installation(context)
    columns = Columns(
        source=source_named(at.project, source), renamed=_renamed(rename or ()), known_at_event=known_at_event
    )
    if query is not None and database is None:
        database = os.environ.get(_DATABASE)
    chosen = _feeds(at, columns, paths or [], (database, query, watermark), lookback, changes, topic, time_unit)
    wait = None if every is None else parse_duration(every, field="--every") / SECOND
    with progress(json_output) as drawn:
        report = feeds.feed(at, at.person(), drawn, source, chosen, restart=restart, every_s=wait)
    show(report, json_output, lambda _: _print(report))
    raise typer.Exit(1 if report.refused else 0)


def _feeds(
    at: Installation,
    columns: Columns,
    paths: list[str],
    asked: tuple[str | None, str | None, str | None],
    lookback: str | None,
    changes: str | None,
    topic: str | None,
    time_unit: str,
) -> Callable[[], list[Feed]]:
    """Return what finds the feeds; InvalidValue unless it is exactly one of files, a query, and change events."""
    from headway.core.errors import InvalidValue
    from headway.features.feeds.change_feeds import TopicFeed
    from headway.features.feeds.files import feeds_of
    from headway.features.feeds.query import QueryFeed
    from headway.features.streams.drivers import stream_name

    if sum((bool(paths), any(asked), topic is not None)) != 1:
        raise InvalidValue("PATH", "give files, or --database with --query and --watermark, or --topic: one of them")
    if lookback is not None and not any(asked):
        raise InvalidValue("--lookback", "is of a query")
    if any(asked):
        database, query, watermark = asked
        if database is None or query is None or watermark is None:
            raise InvalidValue("--query", "needs --database, --query and --watermark")
        if changes is not None:
            raise InvalidValue("--changes", "rows of a query are no change events")
        rows = QueryFeed(database, query, watermark, columns, lookback=lookback)
        return lambda: [rows]
    if topic is not None:
        name = stream_name(at.settings.stream_url)
        messages = TopicFeed(at.stream, topic, name, _changes(columns, changes, time_unit))
        return lambda: [messages]
    if changes is not None:
        meaning = _changes(columns, changes, time_unit)
        return lambda: _lines(paths, meaning)
    return lambda: feeds_of([Path(path) for path in paths], columns)


def _changes(columns: Columns, others: str | None, time_unit: str) -> Changes:
    from headway.core.errors import InvalidValue
    from headway.features.feeds.changes import Changes, OtherChanges

    if others not in tuple(OtherChanges):
        raise InvalidValue(
            "--changes",
            "say what becomes of updates and deletes, which are no events",
            hint="refuse: dead letters with the reason; skip: counted",
        )
    return Changes(columns=columns, others=OtherChanges(others), time_unit=time_unit)


def _lines(paths: list[str], changes: Changes) -> list[Feed]:
    from headway.features.feeds.change_feeds import InputFeed, LinesFeed
    from headway.features.feeds.files import find

    found: list[Feed] = []
    for path in paths:
        if path == _INPUT:
            found.append(InputFeed(sys.stdin.buffer, changes))
        else:
            found += [LinesFeed(inside, changes) for inside in find([Path(path)], _LINES)]
    return found


def _renamed(pairs: list[str] | tuple[str, ...]) -> dict[str, str]:
    from headway.core.errors import InvalidValue

    renamed = {}
    for pair in pairs:
        there, equals, here = pair.partition("=")
        if not (there and equals and here):
            raise InvalidValue("--rename", f"{pair!r} is no pair", hint="created_at=event_time")
        renamed[there] = here
    return renamed


def _print(report: FeedReport) -> None:
    from headway.cli.output import say

    before = f", after {report.before:,} in runs before" if report.before else ""
    say(f"{report.source}: {report.read:,} rows read{before}")
    say(f"published {report.published:,}, refused {report.refused:,}, skipped {report.skipped:,}")
    for reason in report.reasons:
        say(f"refused: {reason}")
    if report.refused:
        say("refused rows are kept in streams.dead_letters")
    if report.ignored:
        say(f"columns that {report.source} does not have: {', '.join(report.ignored)}")
