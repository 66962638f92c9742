"""`headway monitor`: drift against the reference profile, and the alarms the loop acted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from headway.cli.context import JsonFlag, UseCase, installation, show

if TYPE_CHECKING:
    from headway.monitoring.state import MonitorState


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at drift and alarms.", no_args_is_help=True)
    app.add_typer(group, name="monitor")
    group.command("drift")(drift)
    group.command("alarms")(alarms)


def drift(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """Show what the newest full window showed, and how far the open one is."""
    state = _state(context, use_case)
    newest = state.verdicts[-1] if state.verdicts else None
    result = {
        "use_case": use_case,
        "version": state.version,
        "windows": state.windows_total,
        "open_window_rows": state.window.rows,
        "accounts": state.accounts,
        "newest": newest,
    }
    show(result, json_output)


def alarms(context: typer.Context, use_case: UseCase, json_output: JsonFlag = False) -> None:
    """Show alarms, newest last, and where the loop is."""
    state = _state(context, use_case)
    result = {
        "use_case": use_case,
        "alarms_total": state.alarms_total,
        "false_alarms_expected": state.budget_used,
        "alarms": state.alarms,
        "loop": state.loop,
    }
    show(result, json_output)


def _state(context: typer.Context, use_case: str) -> MonitorState:
    from headway.monitoring.state import read_state

    at = installation(context)
    at.person().require("monitor", at.project.require(use_case))
    return read_state(at.control, use_case)
