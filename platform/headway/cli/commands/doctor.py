"""`headway doctor`: what of the machine, the home or a half-dead platform stands in the way."""

from __future__ import annotations

import typer

from headway.cli.context import JsonFlag, show, wanted_settings_of


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def doctor(context: typer.Context, json_output: JsonFlag = False) -> None:
        """Check machine, state and processes; exit status 1 when something needs a hand."""
        from headway.cli.output import table
        from headway.cluster.local.doctor import examine

        findings = examine(wanted_settings_of(context))

        def human(_: object) -> None:
            table(
                ("CHECK", "", "FOUND", "WAY OUT"),
                [(item.check, "ok" if item.ok else "!!", item.found, item.hint) for item in findings],
            )

        show(findings, json_output, human)
        raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)
