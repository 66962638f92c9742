"""numba freezes the numbers of the file it compiles, and never looks at other files again."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from headway.core.times import DAY
from headway.features.join import as_of
from headway.features.rows import scan as rows
from headway.features.status import Status
from headway.features.windows import scan


@pytest.mark.parametrize("module", [scan, rows, as_of])
def test_no_number_of_a_compiled_file_comes_from_another(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]  # a module
    imported = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headway")
        for alias in node.names
    ]
    assert [name for name in imported if name.isupper()] == []


def test_the_numbers_are_those_of_the_platform() -> None:
    assert float(DAY) == scan._DAY
    frozen = (Status.PRESENT, Status.MISSING, Status.EXPIRED)
    assert frozen == (scan.PRESENT, scan.MISSING, scan.EXPIRED)
    assert frozen == (as_of._PRESENT, as_of._MISSING, as_of._EXPIRED)
    assert scan.TRUNCATED == Status.TRUNCATED
