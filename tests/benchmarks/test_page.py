from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness import Collector
from benchmarks.page import PAGE, RESULTS, page


def test_the_page_shows_the_stored_results() -> None:
    assert list(RESULTS.glob("*.json"))
    assert PAGE.read_text() == page(), "run a benchmark with --json benchmarks/results/NAME.json: it writes the page"


def test_a_missed_bar_is_shown_as_missed(tmp_path: Path) -> None:
    collector = Collector("made_up")
    collector.add("headway", "one case", "p50", "ms", [3.0, 1.0, 2.0])
    collector.hold("p50", 2.0, "ms", "<=", 1.0)
    collector.report().write(tmp_path / "made_up.json")
    text = page(tmp_path)
    assert "| p50 | 2 ms | ≤ 1 | **missed** |" in text
    assert "| headway | one case | p50 | 2 ms | 1 to 3 | 3 |" in text


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_name_their_machine_and_versions(path: Path) -> None:
    text = page(path.parent)
    assert f"## {path.stem.replace('_', ' ')}\n" in text
    assert "cores" in text
