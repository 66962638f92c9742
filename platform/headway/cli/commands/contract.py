"""`headway contract`: check, sign and verify a use case's requirements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.context import JsonFlag, UseCase, person, settings_of, show


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Check, sign and verify requirements contracts.", no_args_is_help=True)
    app.add_typer(group, name="contract")
    group.command("check")(check)
    group.command("sign")(sign)
    group.command("verify")(verify)


def check(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """List every clause with the mechanism that enforces it; clauses nothing enforces yet are named."""
    from headway.cli.output import say, table
    from headway.governance.clauses import clauses
    from headway.governance.contract import load_contract

    listed = clauses(load_contract(_path(context, use_case)).contract)

    def human(_: object) -> None:
        rows = [
            (item.path, item.value, item.mechanism or "-", "" if item.enforced else "not enforced yet")
            for item in listed
        ]
        table(("CLAUSE", "VALUE", "MECHANISM", ""), rows)
        open_ones = sum(not item.enforced for item in listed)
        say(f"{len(listed)} clauses, {open_ones} not enforced yet")

    show(listed, json_output, human)


def sign(
    context: typer.Context,
    use_case: UseCase,
    role: Annotated[str, typer.Option(help="The role you sign for.")],
    json_output: JsonFlag = False,
) -> None:
    """Sign the contract as it is now for one of the roles it names."""
    from headway.cli.output import say
    from headway.core.clock import SystemClock
    from headway.governance import signoff
    from headway.governance.audit import audit_log
    from headway.governance.keys import contract_role, signer_for

    settings = settings_of(context)
    who = person(settings)
    clock = SystemClock()
    path = _path(context, use_case)
    signer = signer_for(settings, contract_role(role))
    target = signoff.sign(path, role, signer, who, clock, audit_log(settings, "cli", clock))

    def human(_: object) -> None:
        say(f"{who.sub} signed {use_case} for {role} with key {signer.key_id}: {target}")

    show({"use_case": use_case, "role": role, "key_id": signer.key_id, "file": str(target)}, json_output, human)


def verify(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """Prove that every role signed exactly this contract; exit status 5 otherwise, naming the missing roles."""
    from headway.cli.output import say
    from headway.governance import signoff
    from headway.governance.keys import trust_root

    settings = settings_of(context)
    path = _path(context, use_case)
    trust = trust_root(settings)
    loaded = signoff.require_signed(path, trust, name=use_case)
    signed = signoff.status(path, trust).signed

    def human(_: object) -> None:
        say(
            f"{use_case} {loaded.sha256[:12]} is signed: "
            + ", ".join(f"{role} ({key})" for role, key in signed.items())
        )

    show({"use_case": use_case, "sha256": loaded.sha256, "signed": signed}, json_output, human)


def _path(context: typer.Context, use_case: str) -> Path:
    from headway.core.project import Project

    return Project(settings_of(context).project).app_folder(use_case) / "contract.yaml"
