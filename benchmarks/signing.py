"""Signing and verifying a version of 50 MB: what every registration and every load of a replica pays first.

A part of `training`. The files are random bytes of the sizes that a fine-tuned text model has: hashing does not look at
what they hold.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Collector

MEGABYTES = 50
BAR_S = 0.5
_CASE = f"{MEGABYTES} MB"
_OURS = "headway"


def signing(collector: Collector, *, quick: bool = False) -> None:
    """Add the seconds of signing and verifying, and their bars."""
    from headway.core.clock import SystemClock
    from headway.core.settings import load_settings
    from headway.governance.keys import MODEL_SIGN, development_keys, signer_for, trust_root
    from headway.governance.statement import sign_version, verify_version

    work = Path(tempfile.mkdtemp(prefix="hb"))
    try:
        home, folder = work / "home", work / "version"
        home.mkdir()
        development_keys(home, [])
        settings, clock = load_settings(home=home), SystemClock()
        signer, trust = signer_for(settings, MODEL_SIGN), trust_root(settings)
        _write(folder)
        fields = _fields(clock.now())
        runs = 3 if quick else 15
        sign = _timed(lambda: sign_version(folder, fields, signer), runs)
        verify = _timed(lambda: verify_version(folder, trust, name="triage", version="1", clock=clock), runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    collector.add(_OURS, _CASE, "sign", "s", sign)
    collector.add(_OURS, _CASE, "verify", "s", verify)
    collector.hold(f"signing a version of {_CASE}", statistics.median(sign), "s", "<=", BAR_S)
    collector.hold(f"verifying a version of {_CASE}", statistics.median(verify), "s", "<=", BAR_S)


def _write(folder: Path) -> None:
    (folder / "tokenizer").mkdir(parents=True)
    small = {"profile.json": 400_000, "warmup.json": 200_000, "tokenizer/vocabulary.json": 1_000_000}
    for name, size in small.items():
        (folder / name).write_bytes(os.urandom(size))
    (folder / "model.onnx").write_bytes(os.urandom(MEGABYTES * 10**6 - sum(small.values())))


def _fields(now: int) -> dict[str, Any]:
    digest = "0" * 64
    return {
        "name": "triage", "version": "1", "created": now, "expires": now + 10**12, "run_id": "r", "git_sha": "0" * 40,
        "lock_sha256": digest, "contract_sha256": digest, "kernel_sha256": digest, "snapshots": {},
        "feature_service": "triage_v1", "metrics": {}, "gates": [], "reference_profile_sha256": digest,
        "input_schema": {}, "hardware": {"profile": "", "tier": "gpu", "minimum_memory_bytes": 0}, "backend": "onnx",
    }  # fmt: skip


def _timed(act: Callable[[], object], runs: int) -> list[float]:
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - begin)
    return seconds
