"""The GPU's share is what NVIDIA's library says, and nothing where there is none."""

from __future__ import annotations

import ctypes
import os

import pytest

from headway.core.clock import ManualClock
from headway.serving.gpu import GpuMeter
from headway.serving.load import LoadMeter


def has_nvml() -> bool:
    try:
        return bool(ctypes.CDLL("libnvidia-ml.so.1").nvmlInit_v2() == 0)
    except OSError:
        return False


@pytest.mark.parametrize("devices", ["", "-1", "nonsense", "4096"])
def test_without_a_device_of_ours_there_is_no_answer(devices: str) -> None:
    assert GpuMeter({"CUDA_VISIBLE_DEVICES": devices}).share() is None
    assert GpuMeter({}).share() is None


@pytest.mark.skipif(not has_nvml(), reason="no NVIDIA driver on this machine")
def test_a_device_says_how_busy_it_is() -> None:
    share = GpuMeter({"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}).share()
    assert share is None or 0.0 <= share <= 1.0


def test_a_replica_with_a_gpu_reports_it_and_one_without_does_not() -> None:
    class Work:
        queued_rows, rows, busy_s = 0, 0, 0.0

    class Busy(GpuMeter):
        def share(self) -> float | None:
            return 0.75

    assert LoadMeter(Work(), ManualClock(), gpu=Busy({})).read()["gpu"] == 0.75
    assert "gpu" not in LoadMeter(Work(), ManualClock(), gpu=GpuMeter({})).read()
