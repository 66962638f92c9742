"""`headway models`: list registered versions, prove that one is what was signed, and that its inputs yield it."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, installation, progress, show
from headway.core.errors import InvalidValue


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="List, verify and rebuild model versions.", no_args_is_help=True)
    app.add_typer(group, name="models")
    group.command("list")(listing)
    group.command("verify")(verify)
    group.command("reproduce")(reproduce)


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


def reproduce(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="A version or an alias; `churn/3` names the use case too.")],
    use_case: Annotated[str | None, typer.Option(help="A folder of serve_apps.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Rebuild a version from its snapshots, code, lock and seed; exit status 1 unless rows and model are the same."""
    from headway.cli.output import say, table
    from headway.cluster import training

    at = installation(context)
    named, _, number = version.rpartition("/")
    wanted = at.project.require(use_case or named or _only(at.project.use_cases()))
    with progress(json_output) as drawn:
        result = training.reproduce(at, wanted, number, at.person(), drawn)

    def human(_: object) -> None:
        rows = [(part.name, part.verdict, part.recorded[:16], part.found[:16], part.note) for part in result.parts]
        table(("PART", "VERDICT", "RECORDED", "FOUND", ""), rows)
        said = "the same, bit for bit" if result.reproduced else f"not reproduced: {', '.join(result.differing)}"
        say(f"{wanted} {result.version}: {said}")

    show(result, json_output, human)
    if not result.reproduced:
        raise typer.Exit(1)


def _only(use_cases: list[str]) -> str:
    """Return the project's only use case; InvalidValue asks which one otherwise."""
    if len(use_cases) != 1:
        raise InvalidValue("--use-case", "which one?", hint=f"one of {', '.join(use_cases)}, or VERSION as churn/3")
    return use_cases[0]
