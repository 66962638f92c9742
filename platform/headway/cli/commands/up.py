"""`headway up`: start the local platform, or what is missing of it."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, progress, show, wanted_settings_of


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def up(context: typer.Context, json_output: JsonFlag = False) -> None:
        """Start the local platform: Ray with Serve, three Redis servers, MLflow, an identity provider."""
        import time

        from headway.cli.output import say
        from headway.cluster.local import lifecycle

        settings = wanted_settings_of(context)
        begin = time.monotonic()
        with progress(json_output) as drawn:
            state = lifecycle.up(settings, drawn)
        seconds = time.monotonic() - begin
        result = {"home": state.home, "seconds": round(seconds, 1), "ports": state.ports}

        def human(_: object) -> None:
            where = f"http://{settings.http_host}:{state.http_port}, grpc://{settings.http_host}:{state.grpc_port}"
            say(f"Headway is up after {seconds:.1f} s: {where}, state {state.home}")
            say('Stop it with `headway down`; `eval "$(headway status --shell)"` readies a shell for serve and ray.')

        show(result, json_output, human)
