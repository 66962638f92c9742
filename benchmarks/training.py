"""Training: Ray Train against plain XGBoost, a whole pipeline on everything, back ends on one row.

183 simulated days go into the lake, and one job trains on all of them. The committed job trains on 28 days, because
fraud changes; here the same job is widened until its evaluation week ends with the last known label. Timed are the
stages of the pipeline that the lake and the cluster do.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Collector, Report
from benchmarks.stage import USE_CASE, project_copy
from benchmarks.training_fit import compare_fits

if TYPE_CHECKING:
    from headway.core.settings import Settings

_ROOT = Path(__file__).resolve().parent.parent
_SEED = 11
_TAIL = 14
"""Days at the end that are not trained on: a week of evaluation, a week whose labels are not known yet."""
_DAYS = 183
_OURS = "headway"
_PARTS = ("poisoning", "signing")
"""Benchmarks of their own that belong to training too."""


def benchmark(*, quick: bool = False) -> Report:
    """Run everything and return the report."""
    import ray

    from headway.cluster.local.lifecycle import down, up
    from headway.core.settings import load_settings

    collector = Collector("training")
    work = Path(tempfile.mkdtemp(prefix="hb"))
    settings = load_settings(home=work / "home", project=project_copy(_ROOT, work / "project"))
    try:
        up(settings)
        _connect(settings)
        compare_fits(collector, work / "checkpoints", quick=quick)
        days = _DAYS if not quick else 40
        _widen(settings.project / "training" / f"{USE_CASE}.py", days - _TAIL)
        seconds, trained = _trained(work, days)
        _back_ends(collector, trained)
        for stage, spent in seconds.items():
            collector.add(_OURS, f"{days} days", stage, "s", [spent])
            print(f"{stage}: {spent:.1f} s", flush=True)
    finally:
        ray.shutdown()  # a driver that loses its cluster ends this process
        down(settings)
        shutil.rmtree(work, ignore_errors=True)
    collector.hold("simulation of 183 days", seconds["simulate"], "s", "<=", 60.0)
    collector.hold("dataset and fit on 183 days", seconds["dataset"] + seconds["train"], "s", "<=", 120.0)
    _others(collector, quick=quick)
    return collector.report()


def _connect(settings: Settings) -> None:
    from headway.core import ray_session

    ray_session.connect(settings)


def _back_ends(collector: Collector, folder: Path) -> None:
    """Record what the registered version's own measurement found."""
    from headway.models.compute import BACKENDS_FILE, read_compute

    found = {item.name: item for item in read_compute((folder / BACKENDS_FILE).read_bytes()).backends}
    for name, item in found.items():
        for rows, value in item.microseconds.items():
            collector.add(name, f"{rows} rows", "call", "µs", [value])
    faster = found["xgboost"].microseconds["1"] / found["onnx"].microseconds["1"]
    collector.hold("ONNX Runtime over XGBoost, one row", faster, "×", ">=", 10.0)
    difference = found["onnx"].difference
    collector.hold("its scores", float("inf") if difference is None else difference, "apart", "<=", 1e-6)


def _others(collector: Collector, *, quick: bool) -> None:
    """Run the benchmarks of training's other parts, where they are there."""
    for name in _PARTS:
        if importlib.util.find_spec(f"benchmarks.{name}") is not None:
            report: Report = importlib.import_module(f"benchmarks.{name}").benchmark(quick=quick)
            collector.results += report.results
            collector.bars += report.bars


def _widen(job: Path, days: int) -> None:
    text, changed = re.subn(r'(?m)^    train="\d+d",$', f'    train="{days}d",', job.read_text())
    if changed != 1:
        raise RuntimeError(f"{job} names no range to train on")
    job.write_text(text)


def _trained(work: Path, days: int) -> tuple[dict[str, float], Path]:
    """Return the seconds of each stage, and the registered version's folder."""
    from headway.cluster.compose import Installation, make_development_keys
    from headway.cluster.demo.prepare import sign
    from headway.cluster.history import ingest_tables, known_before
    from headway.cluster.training import train
    from headway.core.progress import RecordedProgress
    from headway.core.times import DAY, KNOWN_TIME

    at = Installation.running(writer="benchmark", home=work / "home", project=work / "project")
    make_development_keys(at.settings)
    history = at.history(USE_CASE)
    person = at.login("demo", "platform_operations")
    progress = RecordedProgress(at.clock)
    with progress.stage("simulate"):
        tables = history.load(_SEED)
    first = min(int(table[KNOWN_TIME].to_numpy().min()) for table in tables.values())
    as_of = first + days * DAY
    sign(at, USE_CASE, person)
    with progress.stage("ingest"):
        ingester = at.workload("ingest", [f"ingest:{source.name}" for source in history.sources], "platform_operations")
        past = known_before(tables, as_of)
        ingest_tables(at, history, past, batch="all", watermark=as_of, principal=ingester)
    trained = train(at, USE_CASE, person, progress, as_of=as_of)
    seconds = {record.name: record.seconds for record in progress.stages if record.name in ("simulate", "ingest")}
    print("; ".join(note for record in progress.stages for note in record.notes), flush=True)
    return seconds | dict(trained.seconds), Path(trained.ref.path)
