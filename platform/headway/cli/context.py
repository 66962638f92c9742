"""What a command needs from its invocation: settings by flags, the acting person, where to print."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headway.cli.output import ConsoleProgress
    from headway.cluster.compose import Installation
    from headway.core.settings import Settings
    from headway.core.types import Principal

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
UseCase = Annotated[str, typer.Argument(metavar="USECASE", help="A folder of serve_apps.")]


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """Flags given before the command."""

    home: str | None
    project: str | None

    def flags(self) -> dict[str, object]:
        """Return the flags that were given."""
        given = {"home": self.home, "project": self.project}
        return {name: value for name, value in given.items() if value is not None}


def settings_of(context: typer.Context) -> Settings:
    """Return the settings, with the addresses of the platform where it is up."""
    from headway.core.platform_state import resolved_settings

    return resolved_settings(**_flags(context))


def running_settings_of(context: typer.Context) -> Settings:
    """Return the settings of a running platform; ServiceFailed says to start it."""
    from headway.core.platform_state import running_settings

    return running_settings(**_flags(context))


def installation(context: typer.Context) -> Installation:
    """Return the running platform with the project's definitions."""
    from headway.cluster.compose import Installation

    return Installation(running_settings_of(context), writer="cli")


def wanted_settings_of(context: typer.Context) -> Settings:
    """Return the settings as written, without the addresses of a running platform: what `up` starts from."""
    from headway.core.settings import load_settings

    return load_settings(**_flags(context))


def person(settings: Settings) -> Principal:
    """Return who is logged in; Unauthenticated says to log in."""
    from headway.core.clock import SystemClock
    from headway.governance.identity import verifier_from
    from headway.governance.login import current_principal

    return current_principal(settings.home, verifier_from(settings, SystemClock()))


def progress(json_output: bool) -> AbstractContextManager[ConsoleProgress]:
    """Return progress drawn on stderr, silent with `--json`."""
    from headway.cli.output import ConsoleProgress

    return ConsoleProgress(quiet=json_output)


def span(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Return the options `--since` and `--until` as UTC microseconds; InvalidValue names the one that is no time."""
    from headway.core.times import parse_time

    first = None if since is None else parse_time(since, field="--since")
    return first, None if until is None else parse_time(until, field="--until")


def show(value: Any, json_output: bool, human: Callable[[Any], None] | None = None) -> None:
    """Print a result: JSON, or what `human` prints, or a plain listing."""
    from headway.cli import output

    output.show(value, json_output=json_output, human=human)


def _flags(context: typer.Context) -> dict[str, object]:
    """Return the flags of the root command; none when a command runs alone."""
    found = context.find_object(Invocation)
    return found.flags() if found is not None else {}
