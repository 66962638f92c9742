"""`headway models`: what is registered, from what it was made, whether that holds, its card, and who moved it where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.context import JsonFlag, UseCase, installation, progress, show
from headway.core.errors import InvalidValue

if TYPE_CHECKING:
    from headway.governance.promotion import Standing

Version = Annotated[str, typer.Argument(metavar="VERSION", help="A version or an alias.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the decision.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="List, verify, rebuild and promote model versions, and show their cards.", no_args_is_help=True
    )
    app.add_typer(group, name="models")
    group.command("list")(listing)
    group.command("show")(describe)
    group.command("verify")(verify)
    group.command("promote")(promote)
    group.command("refuse")(refuse)
    group.command("reproduce")(reproduce)
    group.command("card")(card)


def listing(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """List the versions of a use case's model with state, stage, signature, aliases and lineage."""
    from headway.cli.output import table
    from headway.cluster.versions import summaries

    at = installation(context)
    found = summaries(at, use_case, at.person())

    def human(_: object) -> None:
        rows = [
            (item.version, item.state, item.stage, item.signature, ", ".join(item.aliases), item.made_from)
            for item in found
        ]
        table(("VERSION", "STATE", "STAGE", "SIGNATURE", "ALIASES", "MADE FROM"), rows)

    show(found, json_output, human)


def describe(context: typer.Context, use_case: UseCase, version: Version, json_output: JsonFlag = False) -> None:
    """Show a version: its lineage, its gates, its signature, and who proposed and approved it."""
    from headway.cli.output import say
    from headway.cluster.versions import details

    at = installation(context)
    found = details(at, use_case, version, at.person())

    def human(_: object) -> None:
        for name, value in found.items():
            if isinstance(value, dict):
                say(f"{name}:")
                for key, text in value.items():
                    say(f"    {key}: {text}")
            else:
                say(f"{name}: {value}")

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


def promote(
    context: typer.Context,
    use_case: UseCase,
    version: Version,
    to: Annotated[str, typer.Option(help="production | staging.")],
    reason: Reason = "",
    json_output: JsonFlag = False,
) -> None:
    """Propose a version for production or approve another person's proposal; or move it back to staging."""
    from headway.cluster import promotion

    at = installation(context)
    if to == "production":
        after = promotion.promote(at, use_case, version, at.person())
    elif to == "staging":
        after = promotion.withdraw(at, use_case, version, at.person(), reason)
    else:
        raise InvalidValue("--to", f"{to!r}", hint="production or staging")
    show(after, json_output, lambda _: _said(use_case, after))


def refuse(
    context: typer.Context, use_case: UseCase, version: Version, reason: Reason, json_output: JsonFlag = False
) -> None:
    """Close the open proposal of a version with a reason."""
    from headway.cluster import promotion

    at = installation(context)
    after = promotion.refuse(at, use_case, version, at.person(), reason)
    show(after, json_output, lambda _: _said(use_case, after))


def _said(use_case: str, after: Standing) -> None:
    from headway.cli.output import say
    from headway.core.times import format_time

    assert after.proposal is not None
    what = f"{use_case} {after.proposal.version}"
    if after.decision is None:
        until = format_time(after.proposal.expires)
        say(f"{what} is proposed for production by {after.proposal.proposed_by}.")
        say(f"Another approver, not who asked for its training, runs the same command before {until}.")
        return
    words: dict[str, Any] = {
        "approved": "is in production, approved by",
        "refused": "stays in staging, refused by",
        "withdrawn": "is back in staging, withdrawn by",
    }
    say(f"{what} {words[after.decision.verdict]} {after.decision.decided_by}.")


def reproduce(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="A version or an alias; `churn/3` names the use case too.")],
    use_case: Annotated[str | None, typer.Option(help="A folder of serve_apps.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Rebuild a version from its snapshots, code, lock and seed; exit status 1 unless rows and model are the same."""
    from headway.cli.output import say, table
    from headway.cluster import training
    from headway.cluster.model_card import named

    at = installation(context)
    wanted, number = named(at, version, use_case)
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


def card(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="A version or an alias: 3, @champion, fraud/3.")],
    use_case: Annotated[str | None, typer.Option(help="A folder of serve_apps; needless if there is one.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; .json: for machines. Default: the home's cards.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Verify a version and show its model card: data, metrics, gates, features, limits, signature, lineage."""
    from headway.cli.output import say
    from headway.cluster.model_card import card_of, named
    from headway.training.card_files import card_json, cards_folder, write_card
    from headway.training.card_page import card_page

    at = installation(context)
    case, wanted = named(at, version, use_case)
    made = card_of(at, case, wanted, at.person())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(card_json(made) if out.suffix == ".json" else card_page(made).encode())
    elif not json_output:
        out = write_card(made, cards_folder(at.settings.home, case)).html

    def human(_: object) -> None:
        say(f"{case} {made.version}: {out}")
        for limit in made.limits:
            say(f"  limit: {limit}")

    show(made, json_output, human)
