"""`headway models`: list registered versions, and prove that one is what was signed."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, installation, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="List and verify model versions.", no_args_is_help=True)
    app.add_typer(group, name="models")
    group.command("list")(listing)
    group.command("verify")(verify)


def listing(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """List the versions of a use case's model with state, environment and aliases."""
    from headway.cli.output import table

    at = installation(context)
    found = at.registry.versions(at.project.require(use_case), at.person())

    def human(_: object) -> None:
        rows = [(item.version, item.state, item.environment, ", ".join(item.aliases), item.run_id) for item in found]
        table(("VERSION", "STATE", "ENVIRONMENT", "ALIASES", "RUN"), rows)

    show(found, json_output, human)


def verify(
    context: typer.Context,
    use_case: UseCase,
    version: Annotated[str, typer.Option(help="A version or an alias.")] = "champion",
    json_output: JsonFlag = False,
) -> None:
    """Check signature, file set and hashes of a version before anything of it is parsed."""
    from headway.cli.output import say
    from headway.governance.statement import verify_version

    at = installation(context)
    found = at.registry.resolve(at.project.require(use_case), version, at.person())
    statement = verify_version(found.path, at.trust, name=use_case, version=found.version, clock=at.clock)

    def human(_: object) -> None:
        say(f"{use_case} {found.version} is as signed: {len(statement.files)} files in {found.path}")

    show(statement, json_output, human)
