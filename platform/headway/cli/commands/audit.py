"""`headway audit`: prove that the logs of governed acts are whole."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, settings_of, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Verify the audit chains.", no_args_is_help=True)
    app.add_typer(group, name="audit")
    group.callback()(_group)
    group.command("verify")(verify)


def _group() -> None:
    """Keep `verify` a subcommand though it is the only one."""


def verify(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Follow every chain from its first event to its last; exit status 5 and the line where one breaks."""
    from headway.cli.output import say
    from headway.governance.audit_verify import verify_chains
    from headway.governance.keys import trust_root

    settings = settings_of(context)
    trusts = bool(settings.trust_root) or (settings.home / "trust.json").exists()
    found = verify_chains(settings.home / "audit", trust=trust_root(settings) if trusts else None)

    def human(_: object) -> None:
        for problem in found.problems:
            say(str(problem))
        for note in found.notes:
            say(note)
        say(f"{found.events} events in {found.writers} chains: {'whole' if found.ok else 'NOT whole'}")

    described = {"ok": found.ok, "writers": found.writers, "events": found.events, "problems": found.problems}
    show(described, json_output, human)
    raise typer.Exit(0 if found.ok else 5)
