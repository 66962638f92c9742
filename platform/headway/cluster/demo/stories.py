"""The demo's stories: `core` measures live decisions against the contract, `drift` changes the world and waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.cluster import streams
from headway.cluster.compose import Installation
from headway.cluster.demo.plan import chunks, live_range
from headway.cluster.demo.prepare import Prepared, serving_version
from headway.cluster.demo.replay import Replayed, Replayer, traffic_process
from headway.cluster.demo.scoreboard import Observed, Seen, judge
from headway.cluster.demo.velocity import Velocity, velocity
from headway.core.errors import NotFound
from headway.core.progress import Progress
from headway.core.times import DAY, EVENT_TIME, format_time, parse_time
from headway.core.types import Int64
from headway.features.consistency import ConsistencyReport, check
from headway.features.status import SLACK
from headway.governance.report import ClauseResult
from headway.monitoring.state import read_state
from headway.training.evaluate import evaluate

REQUESTS = 10_100
DRIFT_REQUESTS = 6_000
DRIFT_DAYS = 3
_SPOOL_S = 60.0
_CHAMPION_S = 150.0
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class CoreResult:
    """What the core story measured."""

    replayed: Replayed
    observed: Observed
    clauses: list[ClauseResult]
    consistency: ConsistencyReport

    @property
    def sound(self) -> bool:
        """Whether all requests were answered and logged, with what the lake says, and the last knew of the burst."""
        seen = self.observed
        told = seen.velocity is None or seen.velocity.exact
        return not seen.failures and not seen.mismatches and seen.logged == len(seen.latencies_ms) and told


def core(at: Installation, ready: Prepared, progress: Progress, *, limit: int = REQUESTS) -> CoreResult:
    """Replay the live range up to the drift, and judge what was seen."""
    use_case, history = ready.history.use_case, ready.history
    start, end = live_range(history)
    replayer = Replayer(at, history, ready.tables)
    replayed = Replayed()
    rate = _rate(at, use_case)
    with progress.stage(f"{use_case}: live") as stage:
        pieces = _pieces(at, use_case, end - start)
        plan = chunks(history, ready.tables, start=start, until=end, limit=limit, pieces=pieces)
        replayer.run(plan, rate, stage, replayed)
        worst = np.percentile(replayed.traffic.latencies_ms, 99)
        refused = f", {replayed.traffic.refused:,} refused at first" if replayed.traffic.refused else ""
        stage.note(f"{len(replayed.served):,} decisions at {rate:.0f}/s, p99 {worst:.1f} ms{refused}")
    with progress.stage(f"{use_case}: velocity") as stage:
        scene = velocity(at, ready, replayed.until)
        stage.note(_told(scene))
    with progress.stage(f"{use_case}: decision log") as stage:
        streams.flush(at, [source.name for source in history.sources])
        more = () if scene is None else scene.decisions
        everything = _decision_log(at, use_case, [*replayed.served.values(), *more])
        log = everything.filter(pc.invert(pc.is_in(everything["decision_id"], value_set=pa.array(more, pa.string()))))
        stage.note(f"{log.num_rows:,} decisions in the lake")
    with progress.stage(f"{use_case}: consistency") as stage:
        auditor = at.workload("headway-consistency", ["data:read"], "monitoring")
        report = check(at.service(use_case), everything, at.reader, auditor, auditor.purpose)
        stage.note(f"{report.reads:,} online reads recomputed offline, {report.mismatches} mismatches")
    labelled = log.filter(pc.is_in(log["decision_id"], value_set=pa.array(list(replayed.labels))))
    labels = np.array([replayed.labels[key] for key in labelled["decision_id"].to_pylist()], dtype=np.int64)
    both = len(set(labels.tolist())) == 2
    observed = Observed(
        latencies_ms=replayed.traffic.latencies_ms,
        failures=len(replayed.traffic.errors),
        rate_rps=rate,
        labels=labels.tolist(),
        metrics=_metrics(labels, labelled) if both else {},
        stale=replayed.stale,
        logged=log.num_rows,
        mismatches=report.mismatches,
        replayed_reads=report.reads,
        velocity=None if scene is None else Seen.of(scene, everything),
    )
    return CoreResult(
        replayed=replayed,
        observed=observed,
        clauses=judge(at.contract(use_case).contract, observed),
        consistency=report,
    )


def _rate(at: Installation, use_case: str) -> float:
    """Return what one client may send per second by the contract: the demo uses all of it."""
    return float(at.contract(use_case).contract.limits.default_rps)


def _pieces(at: Installation, use_case: str, span: int) -> int:
    """Return into how many chunks to cut `span`: events run two chunks ahead, and windows keep SLACK behind them."""
    bounded = any(view.horizon is not None for view in at.service(use_case).stored)
    return max(10, -(-3 * span // SLACK)) if bounded else 10


def _told(scene: Velocity | None) -> str:
    if scene is None:
        return "no view counts what is decided"
    delay = "not readable" if scene.readable_ms is None else f"readable after {scene.readable_ms:.0f} ms"
    return f"{scene.burst} events of a card that nobody knew: {delay}"


def _decision_log(at: Installation, use_case: str, decisions: Sequence[str]) -> pa.Table:
    """Return these decisions from the lake, waiting until replicas have handed their spools over."""
    reader = at.workload("headway-report", ["data:read"], "monitoring")
    wanted = pa.array(decisions)
    deadline = time.monotonic() + _SPOOL_S
    while True:
        try:
            log = at.reader.scan(f"decisions.{use_case}", reader, reader.purpose)
            log = log.filter(pc.is_in(log["decision_id"], value_set=wanted))
        except NotFound:
            log = None
        if (log is not None and log.num_rows >= len(wanted)) or time.monotonic() > deadline:
            return pa.table({}) if log is None else log
        time.sleep(_POLL_S)


def _metrics(labels: Int64, decided: pa.Table) -> dict[str, float]:
    measures = evaluate(
        labels, decided["score"].to_numpy(), event_time=decided[EVENT_TIME].to_numpy(), group=None, seed=0
    )
    return {name: measure.value for name, measure in measures.items()}


@dataclass(frozen=True, kw_only=True)
class DriftResult:
    """What the drift story showed."""

    facts: dict[str, Any]
    passed: bool


def drift(at: Installation, ready: Prepared, progress: Progress, *, since: int) -> DriftResult:
    """Let the world change under live traffic: alarm, retraining, gates, new champion, and not one failed request.

    Events known before `since` (UTC microseconds) are in their streams already.
    """
    use_case, history = ready.history.use_case, ready.history
    changed = parse_time(history.drift_from, field="drift_from")
    replayer = Replayer(at, history, ready.tables)
    before = serving_version(at, use_case)
    if since < changed:
        with progress.stage(f"{use_case}: catch up"):
            for chunk in chunks(history, ready.tables, start=since, until=changed, limit=1, pieces=1):
                replayer.publish(chunk)
    replayed = Replayed()
    begin = time.monotonic()
    alarms = len(read_state(at.control, use_case).alarms)
    with progress.stage(f"{use_case}: the world changes") as stage:
        until = changed + DRIFT_DAYS * DAY
        plan = list(chunks(history, ready.tables, start=changed, until=until, limit=DRIFT_REQUESTS, pieces=12))
        alarm_after = None
        for chunk in plan:
            replayer.run([chunk], _rate(at, use_case), stage, replayed)
            state = read_state(at.control, use_case)
            if len(state.alarms) > alarms:
                alarm_after = time.monotonic() - begin
                stage.note(
                    f"alarm after {len(replayed.served):,} decisions: {', '.join(state.alarms[-1].features[:3])}"
                )
                break
        else:
            stage.note("no alarm")
    if alarm_after is None:
        return DriftResult(
            facts={"alarm": "none", "requests": len(replayed.served), "failed": len(replayed.traffic.errors)},
            passed=False,
        )
    alarm = read_state(at.control, use_case).alarms[-1]
    with progress.stage(f"{use_case}: retrain and roll over under traffic") as stage:
        last = plan[-1].requests if plan[-1].requests.num_rows else plan[0].requests
        asyncio.run(_until_new_champion(at, replayer, use_case, last, before, replayed))
        after = serving_version(at, use_case)
        stage.note(
            f"version {before} → {after}, {len(replayed.traffic.errors)} failed of {sum(replayed.versions.values()):,}"
        )
    loop = read_state(at.control, use_case).loop
    facts = {
        "drift from": history.drift_from,
        "alarm at (decision time)": format_time(alarm.last_time),
        "alarm features": ", ".join(alarm.features[:5]),
        "seconds to alarm": round(alarm_after, 1),
        "seconds to new champion": round(time.monotonic() - begin, 1),
        "champion before": before,
        "champion after": after,
        "decisions by version": dict(sorted(replayed.versions.items())),
        "requests": sum(replayed.versions.values()) + len(replayed.traffic.errors),
        "failed": len(replayed.traffic.errors),
        "failures": replayed.traffic.errors[:5],
        "loop phase": loop.phase.value,
    }
    return DriftResult(
        facts=facts, passed=after != before and not replayed.traffic.errors and after in replayed.versions
    )


async def _until_new_champion(
    at: Installation, replayer: Replayer, use_case: str, requests: pa.Table, before: str, into: Replayed
) -> None:
    """Keep deciding at a quarter of the rate until a new version serves and the loop is idle, or time is up."""
    rate = _rate(at, use_case) / 4
    burst = requests.slice(0, max(1, int(rate)))
    deadline = time.monotonic() + _CHAMPION_S
    settled = 0
    with traffic_process() as sending:
        while time.monotonic() < deadline and settled < 3:
            result = await replayer.send(sending, burst, rate)
            into.traffic.extend(result)
            for answer in result.answers:
                if answer is not None:
                    into.versions[answer["model_version"]] = into.versions.get(answer["model_version"], 0) + 1
            state = read_state(at.control, use_case)
            moved = serving_version(at, use_case) != before
            settled = settled + 1 if moved and state.loop.phase.value == "idle" else 0
