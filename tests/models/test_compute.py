"""What a version costs, and which tier that suggests."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from headway.models.compute import BACKENDS_FILE, profile_compute, read_compute, write_compute
from headway.models.parity import BackendReport


def report(name: str, row_us: float, difference: float = 0.0) -> BackendReport:
    return BackendReport(name=name, difference=difference, microseconds={1: row_us, 64: 2 * row_us})


@pytest.mark.parametrize(
    ("row_us", "declared", "suggested", "warns"),
    [
        (14.0, "cpu", "cpu", False),
        (14.0, "edge", "cpu", False),
        (14.0, "gpu", "cpu", True),
        (50_000.0, "cpu", "cpu", False),
        (50_001.0, "cpu", "gpu", True),
        (72_000.0, "gpu", "gpu", False),
        (72_000.0, "edge", "gpu", True),
    ],
)
def test_the_time_of_a_row_suggests_the_tier(row_us: float, declared: str, suggested: str, warns: bool) -> None:
    profile = profile_compute((report("onnx", row_us), report("xgboost", 9e9)), 200 << 20)
    assert (profile.chosen, profile.tier) == ("onnx", suggested)
    said = profile.sentence(declared)
    assert f"tier {suggested} suggested" in said
    assert (f"warning: the contract says {declared}" in said) is warns


def test_the_file_holds_what_was_measured_also_of_a_back_end_that_gave_no_numbers(tmp_path: Path) -> None:
    profile = profile_compute((report("xgboost", 200.0), report("onnx", 10.0, math.inf)), 1 << 20)
    write_compute(tmp_path, profile)
    found = read_compute((tmp_path / BACKENDS_FILE).read_bytes())
    assert found == profile
    assert found.memory_bytes == 1 << 20
    assert [(item.name, item.equal, item.difference) for item in found.backends] == [
        ("xgboost", True, 0.0),
        ("onnx", False, None),
    ]
    assert found.backends[0].microseconds == {"1": 200.0, "64": 400.0}
