"""`headway token`: a bare token for a client program, to be used in a header."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.context import JsonFlag, settings_of, show


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def token(
        context: typer.Context,
        client: Annotated[str, typer.Option(help="Name of the client: the token's subject.")],
        scope: Annotated[list[str], typer.Option(help="A scope such as decide:fraud; repeat it.")],
        purpose: Annotated[str, typer.Option(help="Why it acts.")],
        kind: Annotated[str, typer.Option(help="workload | ci | human.")] = "workload",
        lifetime: Annotated[int, typer.Option(help="Seconds, at most 900.")] = 900,
        json_output: JsonFlag = False,
    ) -> None:
        """Print a token of the local identity provider, and nothing else."""
        from headway.cli.output import say
        from headway.cluster.local.tokens import request_token

        minted = request_token(
            settings_of(context),
            sub=client,
            kind=kind,
            scopes=[part for item in scope for part in item.split()],
            purpose=purpose,
            lifetime_s=lifetime,
        )
        show({"token": minted, "expires_in": lifetime}, json_output, lambda _: say(minted))
