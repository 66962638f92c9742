"""Prints results on stdout (JSON or text) and progress on stderr, so that pipes stay clean."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from headway.core.clock import SystemClock


def builtins(value: Any) -> Any:
    """Return JSON-ready types of dataclasses, structs, paths and times."""
    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)


def show(value: Any, *, json_output: bool, human: Callable[[Any], None] | None = None) -> None:
    """Print a result on stdout."""
    if json_output:
        sys.stdout.write(json.dumps(builtins(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    elif human is not None:
        human(value)
    else:
        _listing(builtins(value))


def say(text: str) -> None:
    """Print one line on stdout, as it is."""
    sys.stdout.write(text + "\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns, never cut: what is cut cannot be copied or searched."""
    cells = [list(headings), *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headings))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _listing(value: Any, indent: str = "") -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, dict | list) and item:
                say(f"{indent}{name}:")
                _listing(item, indent + "  ")
            else:
                say(f"{indent}{name}: {item}")
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                say(indent + "  ".join(f"{name}={part}" for name, part in item.items()))
            else:
                say(f"{indent}{item}")
    else:
        say(f"{indent}{value}")


class ConsoleStage:
    """One stage on the console."""

    def __init__(self, name: str, bars: Bars | None, task: TaskID | None) -> None:
        self.name = name
        self.notes: list[str] = []
        self._bars = bars
        self._task = task

    def advance(self, done: int, total: int | None = None) -> None:
        """Show how far it is."""
        if self._bars is not None and self._task is not None:
            amount = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            self._bars.update(self._task, description=f"{self.name}  {amount}")

    def note(self, text: str) -> None:
        """Keep what came out for the line that ends the stage."""
        self.notes.append(text)


class ConsoleProgress:
    """Draws stages on stderr: live on a terminal, one line per finished stage elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._quiet = quiet
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._bars: Bars | None = None

    def __enter__(self) -> ConsoleProgress:
        """Start drawing."""
        if not self._quiet and self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._bars = Bars(*columns, console=self._console, transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    @contextmanager
    def stage(self, name: str) -> Iterator[ConsoleStage]:
        """Draw one stage; stages may run side by side in threads."""
        with self._lock:
            task = self._bars.add_task(name, total=None) if self._bars is not None else None
        drawn = ConsoleStage(name, self._bars, task)
        start = self._clock.monotonic()
        mark = "✗"
        try:
            yield drawn
            mark = "✓"
        finally:
            seconds = self._clock.monotonic() - start
            with self._lock:
                if self._bars is not None and task is not None:
                    self._bars.remove_task(task)
                if not self._quiet:
                    notes = f"  {'; '.join(drawn.notes)}" if drawn.notes else ""
                    self._console.print(f"{mark} {name:<20} {seconds:6.1f} s{notes}", soft_wrap=True)
