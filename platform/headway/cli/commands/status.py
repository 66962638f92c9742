"""`headway status`: what runs, where, and its memory."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from headway.cli.context import JsonFlag, settings_of, show, wanted_settings_of


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def status(
        context: typer.Context,
        shell: Annotated[
            bool, typer.Option("--shell", help="Print exports for `serve run` and `ray` in this shell.")
        ] = False,
        json_output: JsonFlag = False,
    ) -> None:
        """Show the services of the platform; exit status 1 unless all are up."""
        if shell:
            _exports(context)
            return
        from headway.cluster.local.status import status as examine

        found = examine(wanted_settings_of(context))
        show(found, json_output, _human)
        raise typer.Exit(0 if found.state == "up" else 1)


def _human(found: object) -> None:
    from headway.cli.output import say, table
    from headway.cluster.local.status import Status

    assert isinstance(found, Status)
    if found.services:
        table(
            ("SERVICE", "STATE", "ADDRESS", "PID", "LOG"),
            [(row.title, row.state, row.address, row.pid, row.log) for row in found.services],
        )
    say(f"{found.home}: {found.state}, {found.processes} processes, {found.memory_mib} MiB")


def _exports(context: typer.Context) -> None:
    from headway.cli.output import say
    from headway.core.errors import ServiceFailed
    from headway.core.platform_state import read_state
    from headway.core.ray_session import driver_env

    settings = settings_of(context)
    state = read_state(settings.home)
    if state is None:
        raise ServiceFailed(f"the platform of {settings.home} is not up", hint="headway up")
    for name, value in driver_env(settings, state).items():
        say(f"export {name}={shlex.quote(value)}")
