"""`headway features list|show|lineage|catalogue`: what features there are, whose, how fresh, from where, for whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.context import JsonFlag, installation, settings_of, show

if TYPE_CHECKING:
    from headway.cluster.catalogue import Catalogue
    from headway.cluster.lineage import Line
    from headway.features.catalogue.registry import Applied

Name = Annotated[str, typer.Argument(metavar="NAME", help="A source, view, feature or service.")]
Anything = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="A source, view, feature, service or use case; none: all.")
]


def register(group: typer.Typer) -> None:
    """Add the commands to the group `features`."""
    group.command("list")(listing)
    group.command("show")(one)
    group.command("lineage")(lines)
    group.command("catalogue")(page)


def listing(context: typer.Context, json_output: JsonFlag = False) -> None:
    """List services and views of the registry."""
    from headway.features.catalogue.registry import applied

    show(applied(settings_of(context)), json_output, print_list)


def one(context: typer.Context, name: Name, json_output: JsonFlag = False) -> None:
    """Show what is known of a source, view, feature or service: owner, tags, columns, freshness, who reads it."""
    from headway.cluster.catalogue_facts import facts

    show(facts(_catalogue(context, every_version=False), name), json_output)


def lines(
    context: typer.Context,
    name: Anything = None,
    every: Annotated[bool, typer.Option("--all", help="Every registered version, not only those in service.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Show the way from sources and snapshots by views and services to the model versions in service."""
    from headway.cluster.lineage import lineage

    catalogue = _catalogue(context, usage=False, every_version=every)
    show(lineage(catalogue, name), json_output, lambda found: _print_lines(found, catalogue))


def page(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to write index.html to.")],
    json_output: JsonFlag = False,
) -> None:
    """Write the catalogue as one HTML page that needs no server and no network."""
    from headway.cluster.catalogue_page import write_page

    catalogue = _catalogue(context)
    path = write_page(catalogue, out)
    show({"path": str(path), "notes": list(catalogue.notes)}, json_output)


def _catalogue(context: typer.Context, *, usage: bool = True, every_version: bool = True) -> Catalogue:
    """Return all that can be had: without a running platform, or a person who is logged in, what the registry says."""
    from dataclasses import replace

    from headway.cluster.catalogue import complete, registered
    from headway.core.clock import SystemClock
    from headway.core.errors import AccessError, ServiceFailed

    try:
        at = installation(context)
        return complete(at, at.person(), usage=usage, every_version=every_version)
    except (ServiceFailed, AccessError) as error:
        known = registered(settings_of(context), now=SystemClock().now())
        return replace(known, notes=(*known.notes, f"the registry alone: {error}"))


def print_list(found: list[Applied]) -> None:
    """Print the services and views of the registry."""
    from headway.cli.output import say, table

    rows = [
        (entry.name, len(entry.features), ", ".join(entry.entities), _tags(entry.card), entry.sha256[:12])
        for entry in found
    ]
    table(("SERVICE", "FEATURES", "ENTITIES", "TAGS", "SHA256"), rows)
    say("")
    views = {view.name: (view, entry.name) for entry in found if entry.card for view in entry.card.views}
    table(
        ("VIEW", "KIND", "SOURCE", "KEY", "FEATURES", "TAGS", "OWNER"),
        [
            (
                *(view.name, view.kind, view.source, ", ".join(key.name for key in view.keys), len(view.features)),
                *(_tags(view), view.owner),
            )
            for view, _ in views.values()
        ],
    )


def _print_lines(found: list[Line], catalogue: Catalogue) -> None:
    from headway.cli.output import say

    for line in found:
        at = "no snapshot seen" if line.snapshot_id is None else f"snapshot {line.snapshot_id}"
        say(f"{line.table} ({at}) → {line.version} → {line.service} {line.sha256[:12]}")
        for model in line.models:
            marks = "".join(f" @{alias}" for alias in model.aliases)
            trained = "" if model.snapshot_id is None else f", trained on snapshot {model.snapshot_id}"
            say(f"    → {model.use_case} {model.version}{marks} ({model.state}){trained}")
    for note in catalogue.notes:
        say(f"note: {note}")


def _tags(card: Any) -> str:
    return ", ".join(card.tags) if card else ""
