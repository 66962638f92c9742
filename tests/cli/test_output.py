from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from headway.cli.output import ConsoleProgress, builtins, show, table


@dataclass(frozen=True)
class Thing:
    name: str
    path: Path
    parts: tuple[int, ...]


def test_dataclasses_and_paths_become_builtins() -> None:
    assert builtins([Thing("a", Path("/x"), (1, 2))]) == [{"name": "a", "path": "/x", "parts": (1, 2)}]


def test_a_table_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A", "B"), [("x" * 200, None), ("y", 3)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "x" * 200
    assert lines[2].split() == ["y", "3"]


def test_a_plain_listing_shows_nested_values(capsys: pytest.CaptureFixture[str]) -> None:
    show({"a": 1, "b": {"c": [2, 3]}, "d": []}, json_output=False)
    assert capsys.readouterr().out == "a: 1\nb:\n  c:\n    2\n    3\nd: []\n"


def drawn(quiet: bool = False, terminal: bool = False) -> tuple[ConsoleProgress, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=60, highlight=False, markup=False)
    return ConsoleProgress(quiet=quiet, console=console), text


@pytest.mark.parametrize("terminal", [False, True])
def test_each_stage_ends_in_one_line_even_side_by_side(terminal: bool) -> None:
    progress, text = drawn(terminal=terminal)

    def work(number: int) -> None:
        with progress.stage(f"stage {number}") as stage:
            stage.advance(1, 2)
            stage.note(f"[note {number}]")

    with progress, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    for number in range(8):
        assert text.getvalue().count(f"[note {number}]") == 1
    assert text.getvalue().count("✓") == 8


def test_a_failed_stage_is_marked_and_the_error_goes_on() -> None:
    progress, text = drawn()
    with pytest.raises(RuntimeError), progress, progress.stage("breaks"):
        raise RuntimeError
    assert text.getvalue().startswith("✗ breaks")


def test_quiet_is_silent() -> None:
    progress, text = drawn(quiet=True)
    with progress, progress.stage("x"):
        pass
    assert text.getvalue() == ""
