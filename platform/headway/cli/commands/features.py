"""`headway features`: definitions, the online store, and the proof that it serves what the lake says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.commands import catalogue
from headway.cli.context import JsonFlag, UseCase, installation, person, progress, settings_of, show, span

if TYPE_CHECKING:
    from headway.cluster.features import Proof


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Apply, browse, materialize, check and join features.", no_args_is_help=True)
    app.add_typer(group, name="features")
    group.command("apply")(apply)
    catalogue.register(group)
    group.command("materialize")(materialize)
    group.command("copy")(copy)
    group.command("consistency")(consistency)
    group.command("join")(join)


def apply(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Write entities, views and services of the project to the Feast registry."""
    from headway.core.clock import SystemClock
    from headway.core.project import Project
    from headway.features.catalogue import registry
    from headway.features.definitions import FeatureService
    from headway.governance.audit import audit_log

    settings = settings_of(context)
    services = Project(settings.project).collect("features", FeatureService)
    who = person(settings)
    show(
        registry.apply(services, settings, who, audit_log(settings, "cli", SystemClock())),
        json_output,
        catalogue.print_list,
    )


def materialize(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """Fill the online store from the lake: for a new view, or after the store was lost; newer values stay."""
    from headway.cluster.features import fill

    at = installation(context)
    with progress(json_output) as drawn:
        result = fill(at, use_case, at.person(), drawn)
    show(result, json_output)


def copy(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """Write the present features of window views in Feast's layout, for clients that read with Feast."""
    from headway.cluster import features

    at = installation(context)
    with progress(json_output) as drawn:
        result = features.copy(at, use_case, at.person(), drawn)
    show(result, json_output)


def consistency(
    context: typer.Context,
    use_case: UseCase,
    since: Annotated[str | None, typer.Option(help="First decision time (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option(help="End of the decision times (RFC 3339).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Decisions to recompute, drawn at random.")] = 100_000,
    json_output: JsonFlag = False,
) -> None:
    """Recompute the features of logged decisions from the lake and compare; exit status 5 where they differ."""
    from headway.cluster.features import prove
    from headway.features.consistency import SKEWED

    at = installation(context)
    first, end = span(since, until)
    with progress(json_output) as drawn:
        proof = prove(at, use_case, at.person(), drawn, since=first, until=end, limit=limit)
    show(proof, json_output, _print_proof)
    raise typer.Exit(5 if proof.report.verdict == SKEWED else 0)


def join(
    context: typer.Context,
    use_case: UseCase,
    spine: Annotated[Path, typer.Option(help="Parquet or CSV file with keys, request columns and event_time.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    as_of: Annotated[str | None, typer.Option(help="Read the lake as it was at this time (RFC 3339).")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Join rows of a file with the use case's features, as known at each row's event_time."""
    from headway.cluster import features
    from headway.core.times import parse_time

    at = installation(context)
    moment = None if as_of is None else parse_time(as_of, field="--as-of")
    with progress(json_output) as drawn:
        result = features.join(at, use_case, at.person(), drawn, spine=spine, out=out, as_of=moment)
    show(result, json_output)


def _print_proof(proof: Proof) -> None:
    from headway.cli.output import say, table
    from headway.core.times import format_time

    report = proof.report
    rows = [[f.feature, f.compared, f.equal, f.mismatched, f.missing, f.extra] for f in report.features]
    table(["feature", "compared", "equal", "mismatched", "missing", "extra"], rows)
    for feature in report.differing:
        worst = feature.worst
        assert worst is not None
        where = ", ".join(f"{name} {key}" for name, key in worst.keys.items())
        at = format_time(worst.event_time)
        say(f"{feature.feature}: served {worst.served}, recomputed {worst.recomputed} for {where} at {at}")
    skipped = f", {proof.skipped} answered without current features" if proof.skipped else ""
    say(f"{report.verdict}: {report.mismatches} of {report.reads} reads differ{skipped}")
