"""`headway login`: a short-lived token for the person at this command line."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, settings_of, show


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def login(
        context: typer.Context,
        user: Annotated[str | None, typer.Option(help="Who you are; default: the name of the account.")] = None,
        scope: Annotated[list[str] | None, typer.Option(help="A scope; repeat it. Default: all there are.")] = None,
        purpose: Annotated[str, typer.Option(help="Why you act; readers release data by it.")] = "platform_operations",
        json_output: JsonFlag = False,
    ) -> None:
        """Ask the local identity provider for a token and keep it for the next commands (15 minutes)."""
        import getpass

        from headway.cli.output import say
        from headway.cluster.local.tokens import person_scopes, request_token
        from headway.governance.login import store_token

        settings = settings_of(context)
        name = user or getpass.getuser()
        scopes = scope or person_scopes(settings)
        minted = request_token(settings, sub=name, kind="human", scopes=scopes, purpose=purpose)
        store_token(settings.home, minted)

        def human(_: object) -> None:
            say(f"Logged in as {name} for {purpose}, {len(scopes)} scopes, 15 minutes.")

        show({"sub": name, "purpose": purpose, "scopes": scopes}, json_output, human)
