"""`headway models`: list registered versions, and prove that one is what was signed."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, person, running_settings_of, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="List and verify model versions.", no_args_is_help=True)
    app.add_typer(group, name="models")
    group.command("list")(listing)
    group.command("verify")(verify)


def listing(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """List the versions of a use case's model, newest first, with aliases and metrics."""
    from headway.cluster import compose

    settings = running_settings_of(context)
    show(compose.models(settings, use_case, principal=person(settings)), json_output)


def verify(
    context: typer.Context,
    use_case: UseCase,
    version: Annotated[str, typer.Option(help="A version or an alias.")] = "champion",
    json_output: JsonFlag = False,
) -> None:
    """Check signature, file set and hashes of a version before anything of it is parsed."""
    from headway.cluster import compose

    settings = running_settings_of(context)
    show(compose.verify_model(settings, use_case, version, principal=person(settings)), json_output)
