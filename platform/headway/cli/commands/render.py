"""`headway render`: write what runs elsewhere from what runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, settings_of, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Write manifests.", no_args_is_help=True)
    app.add_typer(group, name="render")
    group.callback()(_group)
    group.command("kubernetes")(kubernetes)


def _group() -> None:
    """Keep `kubernetes` a subcommand though it is the only one."""


def kubernetes(
    context: typer.Context,
    use_case: UseCase,
    out: Annotated[Path, typer.Option(help="Folder for the manifests.")],
    json_output: JsonFlag = False,
) -> None:
    """Write a RayService and what belongs to it, with the Serve configuration that runs locally."""
    from headway.cli.output import say
    from headway.cluster.kubernetes.render import render
    from headway.core.project import Project

    settings = settings_of(context)
    written = render(use_case, Project(settings.project), settings, out)

    def human(_: object) -> None:
        for path in written:
            say(str(path))

    show([str(path) for path in written], json_output, human)
