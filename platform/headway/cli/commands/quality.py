"""`headway quality`: batches that broke their source's promises, what becomes of them, and how values shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.context import JsonFlag, installation, person, settings_of, show

if TYPE_CHECKING:
    from headway.features.quality.quarantine import Case, Quarantine

Batch = Annotated[str, typer.Argument(metavar="BATCH", help="A batch id, as its error names it.")]
SourceOption = Annotated[str | None, typer.Option("--source", help="Where two sources have a batch of that id.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the batch.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Look at quarantined batches and decide on them; see how values shift.", no_args_is_help=True
    )
    app.add_typer(group, name="quality")
    group.command("list")(listing)
    group.command("show")(display)
    group.command("release")(release)
    group.command("drop")(drop)
    group.command("profile")(profile)


def listing(
    context: typer.Context,
    source: SourceOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """List quarantined batches, oldest first."""
    from headway.cli.output import say, table
    from headway.cluster.quality import cases
    from headway.core.times import format_time

    held, who = _quarantine(context), person(settings_of(context))
    found = cases(held, who, source=source, settled=everything)

    def human(_: object) -> None:
        rows = [
            (case.batch, case.source, case.state, case.rows, format_time(case.held_at), _broken(case), case.decided_by)
            for case in found
        ]
        if rows:
            table(("BATCH", "SOURCE", "STATE", "ROWS", "SINCE", "BROKEN", "DECIDED BY"), rows)
        else:
            say("no batch is held")

    show(found, json_output, human)


def display(context: typer.Context, batch: Batch, source: SourceOption = None, json_output: JsonFlag = False) -> None:
    """Show what a batch broke, with its worst values where your purpose allows them."""
    from headway.cli.output import say, table
    from headway.cluster.quality import case
    from headway.core.project import Project
    from headway.core.times import format_time
    from headway.features.definitions import EventSource

    settings = settings_of(context)
    sources = {found.name: found for found in Project(settings.project).collect("features", EventSource)}
    found = case(_quarantine(context), sources, person(settings), batch, source)

    def human(_: object) -> None:
        say(f"{found.batch} of {found.source}: {found.state}, {found.rows:,} rows from {found.sent_by}")
        say(f"held since {format_time(found.held_at)}, rows sha256 {found.rows_sha256}")
        if found.decided_by:
            say(f"decided by {found.decided_by} at {format_time(found.decided_at)}: {found.reason}")
        rows = [
            (f.expectation, "kept" if f.passed else f"broken ({f.severity})", f.breaches, f.allowed, f.row, f.example)
            for f in found.report.findings
        ]
        table(("EXPECTATION", "", "BREACHES", "ALLOWED", "WORST ROW", "VALUE"), rows)

    show(found, json_output, human)


def release(
    context: typer.Context,
    batch: Batch,
    reason: Reason,
    source: SourceOption = None,
    keep_known_time: Annotated[
        bool, typer.Option(help="Rows stay known from when their source said: for a replayed history only.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Ingest a held batch after all, under its own id and known from now on; repeating it adds nothing."""
    from headway.cli.output import say
    from headway.cluster import quality

    at = installation(context)
    done = quality.release(at, at.person(), batch, source=source, reason=reason, keep_known_time=keep_known_time)

    def human(_: object) -> None:
        say(f"{done.rows:,} rows of {done.source} are in the lake, snapshot {done.snapshot_id}")

    show(done, json_output, human)


def drop(
    context: typer.Context, batch: Batch, reason: Reason, source: SourceOption = None, json_output: JsonFlag = False
) -> None:
    """Decide that a held batch is not ingested; what it broke stays on record."""
    from headway.cli.output import say
    from headway.core.clock import SystemClock
    from headway.features.quality import decisions
    from headway.governance.audit import audit_log

    settings, held = settings_of(context), _quarantine(context)
    who, audit = person(settings), audit_log(settings, "cli", SystemClock())
    who.require("quality", "write")
    done = decisions.drop(held.find(batch, source), held, principal=who, audit=audit, reason=reason)

    def human(_: object) -> None:
        say(f"{done.batch} of {done.source} is dropped; corrected rows may come under its id")

    show(done, json_output, human)


def profile(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A source of the project.")],
    days: Annotated[int, typer.Option(help="Newest days that are looked at.")] = 1,
    against: Annotated[int, typer.Option(help="Days before them that they are compared with.")] = 28,
    json_output: JsonFlag = False,
) -> None:
    """Show how the newest ingested values lie, and which shifted against the days before."""
    from headway.cli.output import say, table
    from headway.cluster import quality

    at = installation(context)
    found = quality.profile(at, at.person(), source, days=days, against=against)

    def human(_: object) -> None:
        say(f"{source} {found.since} to {found.until}: {found.rows:,} rows")
        say(f"against {found.against_rows:,} rows of {found.against_days} days before")
        rows = [
            (
                *(
                    column.column,
                    f"{column.missing:.2%}",
                    *(_number(n) for n in (column.low, column.median, column.high)),
                ),
                *(f"{column.shift:.3f}", "shifted" if column.warns else ""),
            )
            for column in found.columns
        ]
        table(("COLUMN", "MISSING", "P5 ≤", "P50 ≤", "P95 ≤", "SHIFT", ""), rows)

    show(found, json_output, human)


def _quarantine(context: typer.Context) -> Quarantine:
    from headway.core.clock import SystemClock
    from headway.features.quality.quarantine import Quarantine, quarantine_folder

    return Quarantine(quarantine_folder(settings_of(context)), SystemClock())


def _broken(case: Case) -> str:
    return "; ".join(finding.expectation for finding in case.report.rejected)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
