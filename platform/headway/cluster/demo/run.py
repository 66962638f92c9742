"""`headway demo`: starts the platform, runs the stories, keeps the report, draws the scoreboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.cluster.compose import Installation, make_development_keys
from headway.cluster.demo.plan import live_range, request_bodies
from headway.cluster.demo.prepare import Prepared, prepare
from headway.cluster.demo.report import latency_summary, save_report
from headway.cluster.demo.stories import REQUESTS, core, drift
from headway.cluster.local import lifecycle
from headway.core.errors import InvalidValue
from headway.core.platform_state import running_settings
from headway.core.progress import Progress, RecordedProgress, Stage
from headway.core.settings import Settings
from headway.core.times import EVENT_TIME
from headway.governance.report import Report, StageSeconds, UseCaseReport

STORIES = ("core", "drift")
_SEED = 7
_USER = "demo"


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo showed."""

    report: Report
    passed: bool
    """Every story went as told: nothing failed, nothing was skewed, nothing is missing from the log. A clause that was
    missed is on the scoreboard; how fast this machine is does not make the demo fail."""
    lines: tuple[str, ...]
    """What to do next: a call that works, the page, how to stop."""

    def print_scoreboard(self) -> None:
        """Draw clause, target, measured and verdict per use case."""
        from headway.cluster.demo.board import draw

        draw(self.report, self.lines)


def run(
    settings: Settings,
    *,
    use_cases: Sequence[str] | None,
    stories: Sequence[str] | None,
    progress: Progress,
    seed: int = _SEED,
    requests: int = REQUESTS,
) -> DemoResult:
    """Run the stories of the use cases; without a choice: core for all, drift where a history has one.

    `requests` is how many decisions the core story asks for.
    """
    at_rest = Installation(settings, writer="demo")
    chosen = [at_rest.project.require(name) for name in use_cases or at_rest.project.use_cases()]
    for name in stories or ():
        if name not in STORIES:
            raise InvalidValue("--story", f"unknown story {name!r}", hint=f"one of {', '.join(STORIES)}")
    for use_case in chosen:
        if stories and "drift" in stories and at_rest.history(use_case).drifted is None:
            raise InvalidValue("--story", f"the history of {use_case} has no drift", hint="leave it out, or use core")
    lifecycle.up(settings, progress)
    make_development_keys(settings)
    at = Installation(running_settings(home=settings.home, project=settings.project), writer="demo")
    path = settings.home / "demo" / "report.json"
    passed, lines = True, []
    report: Report | None = None
    for use_case in chosen:
        report, good, line = _one(at, use_case, stories, progress, seed, path, requests)
        passed &= good
        lines.append(line)
    assert report is not None
    return DemoResult(
        report=report, passed=passed, lines=(*lines, f"Report: {path.with_suffix('.html')}", "Stop: headway down")
    )


def _one(
    at: Installation,
    use_case: str,
    stories: Sequence[str] | None,
    progress: Progress,
    seed: int,
    path: Path,
    requests: int,
) -> tuple[Report, bool, str]:
    timed = _Timed(progress)
    person = at.login(_USER, "platform_operations")
    ready = prepare(at, use_case, seed=seed, person=person, progress=timed)
    wants_drift = ready.history.drifted is not None and (stories is None or "drift" in stories)
    shown = core(at, ready, timed, limit=requests) if stories is None or "core" in stories else None
    since = shown.replayed.until if shown else ready.start
    changed = drift(at, ready, timed, since=since) if wants_drift else None
    latency, histogram = latency_summary(shown.observed.latencies_ms if shown else [])
    entry = UseCaseReport(
        clauses=tuple(shown.clauses) if shown else (),
        stages=tuple(StageSeconds(name=item.name, seconds=round(item.seconds, 3)) for item in timed.recorded.stages),
        latency_ms=latency,
        requests=len(shown.observed.latencies_ms) if shown else 0,
        errors=shown.observed.failures if shown else 0,
        replayed_reads=shown.consistency.reads if shown else 0,
        mismatches=shown.consistency.mismatches if shown else 0,
        model=_model(ready),
        latency_histogram=histogram,
        velocity=shown.observed.velocity.facts if shown and shown.observed.velocity else None,
        drift=changed.facts if changed else None,
    )
    good = (shown is None or shown.sound) and (changed is None or changed.passed)
    return save_report(path, use_case, entry), good, _curl(at, ready)


def _model(ready: Prepared) -> dict[str, Any]:
    statement = ready.statement
    return {
        "version": statement.version,
        "backend": statement.backend,
        "feature_service": statement.feature_service,
        "contract_sha256": statement.contract_sha256,
        "kernel_sha256": statement.kernel_sha256,
        "metrics": {
            name: f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]" for name, value in statement.metrics.items()
        },
    }


def _curl(at: Installation, ready: Prepared) -> str:
    """Return a command that decides the last row of the replayed range."""
    import json

    requests = ready.tables[ready.history.requests.name]
    _, end = live_range(ready.history)
    times = requests[EVENT_TIME].to_numpy()
    row = requests.slice(int(times.searchsorted(end)) - 1, 1)
    (body,) = request_bodies(at.service(ready.history.use_case), row)
    use_case = ready.history.use_case
    purpose = at.contract(use_case).contract.privacy.purposes[0]
    scopes = f"--scope decide:{use_case} --scope replay:{use_case}"
    return (
        f"curl -s {ready.url}/v1/decisions "
        f'-H "authorization: Bearer $(headway token --client me {scopes} --purpose {purpose})" '
        f"-H 'content-type: application/json' -d '{json.dumps(body)}'"
    )


class _Timed:
    """Draws stages and keeps their seconds for the report."""

    def __init__(self, drawn: Progress) -> None:
        self._drawn = drawn
        self.recorded = RecordedProgress()

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """Open the stage in both."""
        return self._stage(name)

    @contextmanager
    def _stage(self, name: str) -> Iterator[Stage]:
        with self.recorded.stage(name), self._drawn.stage(name) as stage:
            yield stage
