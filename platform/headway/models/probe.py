"""First load of a model in a process of its own: a file that crashes a native parser kills the probe, not the replica.

Run as `python -m headway.models.probe FOLDER BACKEND CPU_S MEMORY` on a folder whose signature was verified; with a
fifth argument, a file of rows, their scores are printed. The process has bounded memory and processor time, writes no
files, and sees none of the parent's environment but what Python needs to start.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from headway.core.errors import HeadwayError, Tampered
from headway.core.types import Matrix
from headway.models.backends import model_file, open_backend
from headway.models.onnx_validation import parse_onnx
from headway.models.warmup import Warmup

TIMEOUT_S = 60.0
CPU_S = 60
MEMORY_BYTES = 4 * 2**30
"""Private memory beside four times the model file."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS")
WARMUP_FILE = "warmup.json"
_ROWS_FILE = "rows.npy"


def probe(
    folder: Path, backend: str, *, timeout_s: float = TIMEOUT_S, cpu_s: int = CPU_S, memory_bytes: int = MEMORY_BYTES
) -> int:
    """Load the model and assert its warm-up in a child process; return the child's peak memory in bytes.

    Raises Tampered saying how the child ended.
    """
    arguments = [str(folder), backend, str(cpu_s), str(memory_bytes)]
    return int(_child(arguments, f"{folder.name} with {backend}", timeout_s))


def try_model(backend: str, model: bytes, rows: Matrix, *, timeout_s: float = TIMEOUT_S) -> Matrix:
    """Return the scores that a child process makes of float32 [n, k]; raises Tampered saying how the child ended."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / model_file(backend)).write_bytes(model)
        np.save(Path(folder) / _ROWS_FILE, rows, allow_pickle=False)
        arguments = [folder, backend, str(CPU_S), str(MEMORY_BYTES), _ROWS_FILE]
        printed = _child(arguments, f"a model with {backend}", timeout_s)
    return np.asarray(json.loads(printed), dtype=np.float32)


def _child(arguments: list[str], what: str, timeout_s: float) -> str:
    command = [sys.executable, "-m", "headway.models.probe", *arguments]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise Tampered(f"loading {what} did not end within {timeout_s:.0f} s") from None
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        ended = f"exit status {child.returncode}"
        if child.returncode < 0:
            ended = f"signal {signal.Signals(-child.returncode).name}"
        raise Tampered(
            f"the trial load of {what} ended with {ended}: {lines[-1] if lines else 'no output'}",
            hint="the model file cannot be served; train again or roll back",
        )
    return child.stdout


def main(arguments: list[str]) -> int:
    """Load, warm up and write the peak memory; return 0, or 1 with the reason on standard error."""
    folder, backend = Path(arguments[0]), arguments[1]
    try:
        _confine(int(arguments[2]), int(arguments[3]) + 4 * (folder / model_file(backend)).stat().st_size)
        model = (folder / model_file(backend)).read_bytes()
        if backend == "onnx":
            parse_onnx(model)
        if arguments[4:]:
            rows = np.load(folder / arguments[4], allow_pickle=False)
            sys.stdout.write(json.dumps(open_backend(backend, model).predict(rows).tolist()))
            return 0
        warmup = msgspec.json.decode((folder / WARMUP_FILE).read_bytes(), type=Warmup)
        warmup.check(open_backend(backend, model))
    except (HeadwayError, msgspec.MsgspecError, OSError, RuntimeError, ValueError, MemoryError) as error:
        sys.stderr.write(f"{error or type(error).__name__}\n")
        return 1
    sys.stdout.write(f"{peak_memory()}\n")
    return 0


def _confine(cpu_s: int, memory_bytes: int) -> None:
    """Bound this process before it reads anything of the model: its private memory, its time, and no files."""
    for kind, bound in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (limit, limit))


def peak_memory() -> int:
    """Return this process's largest resident size in bytes.

    From /proc where there is one: elsewhere `ru_maxrss` is all there is, and it may hold the parent's, which is larger.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
