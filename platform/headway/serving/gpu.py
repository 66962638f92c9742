"""How busy the GPUs of this process are, by NVIDIA's management library: no package, no child process.

Where there is no library, no device of ours, or a device that does not say (a MIG slice), there is no answer.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress

_LIBRARY = "libnvidia-ml.so.1"


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))  # per cent of the last sample


class GpuMeter:
    """The busiest of the devices that `CUDA_VISIBLE_DEVICES` gives this process; Ray sets it for who asked for one."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._nvml: ctypes.CDLL | None = None
        self._devices: list[ctypes.c_void_p] = []
        named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        if not named:
            return
        with suppress(OSError, AttributeError):  # no library, or one too old
            nvml = ctypes.CDLL(_LIBRARY)
            if nvml.nvmlInit_v2() != 0:
                return
            for name in named:
                device = ctypes.c_void_p()
                found = (
                    nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(device))
                    if name.isdigit()
                    else nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(device))
                )
                if found == 0:
                    self._devices.append(device)
            self._nvml = nvml

    def share(self) -> float | None:
        """Return the share of time that kernels ran, in [0, 1]; None where nobody can say."""
        shares = []
        for device in self._devices:
            rates = _Utilization()
            if self._nvml is not None and self._nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(rates)) == 0:
                shares.append(rates.gpu / 100.0)
        return max(shares, default=None)
