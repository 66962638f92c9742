"""The `headway` command. Modules of commands import nothing heavy, so that `headway --help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import headway
from headway.cli.commands import (
    audit,
    contract,
    demo,
    deploy,
    doctor,
    down,
    features,
    lake,
    login,
    models,
    monitor,
    quality,
    render,
    score,
    status,
    stream,
    token,
    train,
    up,
)
from headway.cli.context import Invocation
from headway.cli.failures import report
from headway.core.errors import HeadwayError


def build() -> typer.Typer:
    """Return the application with all commands, in the order a newcomer needs them."""
    app = typer.Typer(
        name="headway",
        help=headway.__doc__ and headway.__doc__.splitlines()[0],
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(invoke_without_command=True)
    def root(
        context: typer.Context,
        home: Annotated[str | None, typer.Option(help="State folder (HEADWAY_HOME, default .headway).")] = None,
        project: Annotated[str | None, typer.Option(help="Folder of the definitions (HEADWAY_PROJECT).")] = None,
        version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    ) -> None:
        if version:
            typer.echo(headway.__version__)
            raise typer.Exit
        context.obj = Invocation(home=home, project=project)

    for module in (
        *(demo, up, status, down, doctor, login, token, contract, features, stream, lake, quality),
        *(train, models, deploy, score, monitor, audit, render),
    ):
        module.register(app)
    return app


def main() -> None:
    """Run the command of `sys.argv`; errors of ours become one line and an exit status."""
    try:
        build()()
    except HeadwayError as error:
        sys.exit(report(error, as_json="--json" in sys.argv))
    except KeyboardInterrupt:
        sys.stderr.write("headway: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
