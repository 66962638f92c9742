"""What the trial load may use, and what it may see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headway.core.errors import Tampered
from headway.models import probe as module
from headway.models.probe import probe
from tests.models.conftest import Made


@pytest.mark.parametrize("backend", ["onnx", "xgboost"])
def test_a_model_loads_within_the_bounds_and_without_the_parents_secrets(
    made: Made, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_SIGNING_KEY", "/secret.pem")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    seen: list[dict[str, str]] = []
    real = subprocess.run

    def spied(*arguments: object, **options: object) -> object:
        seen.append(dict(options["env"]))  # type: ignore[call-overload]  # an environment
        return real(*arguments, **options)  # type: ignore[call-overload]  # handed on as it came

    monkeypatch.setattr(subprocess, "run", spied)
    assert 10**7 < probe(made.folder, backend) < module.MEMORY_BYTES
    assert {"PATH"} <= set(seen[0]) <= {*module._ENVIRONMENT, "PYTHONDONTWRITEBYTECODE"}


def test_too_little_memory_and_too_little_time_are_refusals(made: Made) -> None:
    with pytest.raises(Tampered, match="trial load"):
        probe(made.folder, "onnx", memory_bytes=2**20)
    with pytest.raises(Tampered, match="did not end within"):
        probe(made.folder, "onnx", timeout_s=0.01)


def test_the_confined_process_cannot_spin_allocate_or_write(tmp_path: Path) -> None:
    """The bounds themselves, on code that does what a hostile parser would."""
    left = tmp_path / "left"
    acts = {
        "while True: pass": "",
        "held = bytearray(2**31)": "MemoryError",
        f"import pathlib; pathlib.Path({str(left)!r}).write_text('x' * 100)": "File too large",
    }
    for act, said in acts.items():
        script = f"from headway.models.probe import _confine; _confine(1, 2**29)\n{act}"
        child = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, env=os.environ
        )
        assert child.returncode != 0, act
        assert said in child.stderr
    assert left.read_text() == ""
