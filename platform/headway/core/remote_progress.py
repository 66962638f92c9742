"""Progress and errors of another process: said as JSON lines there, drawn and raised here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import msgspec

from headway.core.errors import HeadwayError, PlatformError
from headway.core.progress import Progress, Stage

Line = dict[str, Any]


class SpokenStage:
    """A stage that tells another process what it would draw."""

    def __init__(self, name: str, say: Callable[[Line], None]) -> None:
        self._name = name
        self._say = say

    def advance(self, done: int, total: int | None = None) -> None:
        """Say how far it is."""
        self._say({"event": "advance", "stage": self._name, "done": done, "total": total})

    def note(self, text: str) -> None:
        """Say what came out."""
        self._say({"event": "note", "stage": self._name, "text": text})


class SpokenProgress:
    """Progress whose stages are told to another process, a line each; `say` is called by one thread at a time."""

    def __init__(self, say: Callable[[Line], None]) -> None:
        self._lock = threading.Lock()
        self._out = say

    @contextmanager
    def stage(self, name: str) -> Iterator[SpokenStage]:
        """Tell of the beginning and the end of a stage."""
        self._say({"event": "begin", "stage": name})
        failed = True
        try:
            yield SpokenStage(name, self._say)
            failed = False
        finally:
            self._say({"event": "end", "stage": name, "failed": failed})

    def _say(self, line: Line) -> None:
        with self._lock:
            self._out(line)


class _StageFailed(Exception):
    """Ends a stage here as it ended there."""


class HeardProgress:
    """Draws what another process tells; leaving the context ends what it left open."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[str, tuple[AbstractContextManager[Stage], Stage]] = {}

    def hear(self, line: Line) -> None:
        """Draw one line; an event or stage that is not known is passed over."""
        name, event = str(line.get("stage", "")), line.get("event")
        if event == "begin":
            context = self._progress.stage(name)
            self._open[name] = (context, context.__enter__())
        elif name in self._open:
            stage = self._open[name][1]
            if event == "advance":
                stage.advance(line["done"], line["total"])
            elif event == "note":
                stage.note(line["text"])
            elif event == "end":
                self._end(name, failed=line["failed"])

    def close(self) -> None:
        """End what is open as failed."""
        for name in list(self._open):
            self._end(name, failed=True)

    def _end(self, name: str, *, failed: bool) -> None:
        context, _ = self._open.pop(name)
        if not failed:
            context.__exit__(None, None, None)
            return
        error = _StageFailed(name)
        with suppress(_StageFailed):
            context.__exit__(_StageFailed, error, None)


def told_error(error: HeadwayError) -> Line:
    """Return an error as builtin types."""
    rest = {name: value for name, value in vars(error).items() if name not in ("message", "field", "hint")}
    return {
        "kind": type(error).__name__, "message": error.message, "field": error.field, "hint": error.hint,
        "state": msgspec.to_builtins(rest, enc_hook=str),
    }  # fmt: skip


def heard_error(line: Line) -> HeadwayError:
    """Return the error that was told; a kind that is not known here is a PlatformError."""
    kind = _kinds(HeadwayError).get(line["kind"], PlatformError)
    error = kind.__new__(kind)
    HeadwayError.__init__(error, line["message"], field=line["field"], hint=line["hint"])
    error.__dict__.update(line["state"])
    return error


def _kinds(base: type[HeadwayError]) -> dict[str, type[HeadwayError]]:
    found = {base.__name__: base}
    for kind in base.__subclasses__():
        found |= _kinds(kind)
    return found
