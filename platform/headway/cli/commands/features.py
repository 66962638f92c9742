"""`headway features`: write the definitions to the registry, and read them back."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, person, settings_of, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Apply and list feature definitions.", no_args_is_help=True)
    app.add_typer(group, name="features")
    group.command("apply")(apply)
    group.command("list")(listing)


def apply(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Write entities, views and services of the project to the Feast registry."""
    from headway.core.clock import SystemClock
    from headway.core.project import Project
    from headway.features import catalogue
    from headway.features.definitions import FeatureService
    from headway.governance.audit import audit_log

    settings = settings_of(context)
    services = Project(settings.project).collect("features", FeatureService)
    who = person(settings)
    show(catalogue.apply(services, settings, who, audit_log(settings, "cli", SystemClock())), json_output)


def listing(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Read the registry back."""
    from headway.features.catalogue import applied

    show(applied(settings_of(context)), json_output)
