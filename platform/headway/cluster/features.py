"""What people ask of a use case's features: join them to rows, fill the online store, prove that it serves no skew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headway.cluster.compose import Installation
from headway.cluster.history import backfill
from headway.core import ray_session
from headway.core.errors import NotFound
from headway.core.progress import Progress
from headway.core.times import EVENT_TIME
from headway.core.types import Principal
from headway.features.consistency import ConsistencyReport, check
from headway.features.definitions import WindowView
from headway.features.historical import training_set
from headway.features.join.spine import read_spine
from headway.features.labels import pin
from headway.features.lake.faults import lake_faults
from headway.features.write_report import WriteReport

_WITHOUT_FEATURES = r"(^|,)(features:|stale:|ceiling(,|$))"
"""Marks, joined by commas, of decisions that were not made with the features of that moment, and said so."""


@dataclass(frozen=True, kw_only=True)
class Materialized:
    """What was written."""

    views: Mapping[str, WriteReport]
    """Per version of a view, `<name>@<hash>`."""
    rows_per_s: float
    """Distinct events over the seconds of reading and writing."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A consistency check of logged decisions, as it is kept for gates and readers."""

    use_case: str
    checked_at: int
    """UTC microseconds."""
    skipped: int
    """Decisions in the range that were answered without current features and say so."""
    report: ConsistencyReport


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What a join wrote."""

    path: str
    rows: int
    features: int
    snapshots: Mapping[str, int]
    """Lake table → snapshot id that was read."""


def fill(at: Installation, use_case: str, principal: Principal, progress: Progress) -> Materialized:
    """Write the events of the use case's views from the lake to the online store; repeating it changes nothing.

    Needs the scope `features:write`; reads under the platform's own identity.
    """
    principal.require("features", "write")
    service = at.service(at.project.require(use_case))
    start = at.clock.monotonic()
    views = backfill(at, at.views(use_case), progress=progress)
    events = sum(report.events for report in views.values())
    rate = events / max(at.clock.monotonic() - start, 1e-9)
    _record(at, principal, "features.materialize", service.name, f"{events} events")
    return Materialized(views=views, rows_per_s=rate)


def copy(at: Installation, use_case: str, principal: Principal, progress: Progress) -> Mapping[str, int]:
    """Write the present features of the use case's window views for clients of Feast; return the keys per view.

    Needs the scope `features:write`.
    """
    from headway.features.feast import copy as feast_copy

    principal.require("features", "write")
    service = at.service(at.project.require(use_case))
    keys = {}
    for view in service.stored:
        if isinstance(view, WindowView):
            with progress.stage(f"copy {view.name}") as stage:
                keys[view.name] = feast_copy.copy(view, at.settings, at.clock)
                stage.note(f"{keys[view.name]:,} keys")
    _record(at, principal, "features.copy", service.name, f"{sum(keys.values())} keys")
    return keys


def prove(
    at: Installation,
    use_case: str,
    principal: Principal,
    progress: Progress,
    *,
    since: int | None = None,
    until: int | None = None,
    limit: int = 100_000,
    seed: int = 7,
) -> Proof:
    """Recompute logged decisions from the lake, at most `limit` drawn at random, and keep the verdict.

    `since` and `until` bound the decision times, UTC microseconds. NotFound where nothing was decided in them.
    """
    principal.require("data", "read")
    service = at.service(at.project.require(use_case))
    worker = at.workload("headway-consistency", ["data:read"], "monitoring")
    bounds = (since or 0, until if until is not None else at.clock.now())
    with progress.stage("read decisions") as stage:
        log = at.reader.scan(f"decisions.{use_case}", worker, worker.purpose, event_time=bounds)
        if not log.num_rows:
            raise NotFound("decision in the range of", use_case)
        served = with_features(log)
        skipped = log.num_rows - served.num_rows
        if served.num_rows > limit:
            chosen = np.random.default_rng(seed).choice(served.num_rows, limit, replace=False)
            served = served.take(pa.array(np.sort(chosen)))
        stage.note(f"{served.num_rows:,} of {log.num_rows:,}")
    with progress.stage("recompute") as stage:
        report = check(service, served.sort_by(EVENT_TIME), at.reader, worker, worker.purpose)
        stage.note(f"{report.mismatches:,} of {report.reads:,} reads differ: {report.verdict}")
    proof = Proof(use_case=use_case, checked_at=at.clock.now(), skipped=skipped, report=report)
    path = proof_path(at.settings.home, use_case)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(proof))
    _record(at, principal, "features.consistency", use_case, f"{report.verdict}: {report.mismatches} of {report.reads}")
    return proof


def join(
    at: Installation,
    use_case: str,
    principal: Principal,
    progress: Progress,
    *,
    spine: Path,
    out: Path,
    as_of: int | None = None,
) -> Joined:
    """Join rows of a Parquet or CSV file with the use case's features, as known at each row's event_time.

    The file has the service's keys and request columns, `event_time`, and anything else, which is kept; rows come out
    in order. `out` is a Parquet file that appears when it is whole. InvalidValue names what the file lacks. `as_of`
    reads the lake as it was then (UTC microseconds); NotFound tells of a source without a snapshot of that time.
    """
    principal.require("data", "read")
    service = at.service(at.project.require(use_case))
    worker = at.workload("headway-join", ["data:read"], "model_training")
    with progress.stage("read rows") as stage:
        rows = read_spine(spine, service)
        stage.note(f"{rows.num_rows:,} rows")
    ray_session.connect(at.settings)
    with progress.stage("join") as stage:
        sources = [view.source for view in service.stored]
        if as_of is None:
            snapshots = pin(at.reader, *sources)
        else:
            snapshots = {source.table: at.reader.at(source.table, as_of) for source in sources}
        joined = training_set(rows, service, at.reader, worker, worker.purpose, snapshots=snapshots)
        partial = out.with_name(f".{out.name}.partial")
        out.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        try:
            with lake_faults(f"write {out}"), pq.ParquetWriter(partial, joined.schema().base_schema) as file:
                for block in joined.iter_batches(batch_format="pyarrow", batch_size=None):
                    file.write_table(block)
                    written += block.num_rows
                    stage.advance(written, rows.num_rows)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
        stage.note(f"{written:,} rows in {out}")
    _record(at, principal, "features.join", service.name, f"{written} rows")
    return Joined(path=str(out), rows=written, features=len(service.features), snapshots=snapshots)


def with_features(log: pa.Table) -> pa.Table:
    """Return the decisions that were made with the features of their moment, whatever else their marks say."""
    unmarked = pc.invert(pc.match_substring_regex(log["degraded"], _WITHOUT_FEATURES))
    return log.filter(pc.and_(unmarked, pc.not_equal(log["arm"], "rules")))


def proof_path(home: Path, use_case: str) -> Path:
    """Return where the last proof of a use case is kept."""
    return home / "features" / "consistency" / f"{use_case}.json"


def _record(at: Installation, principal: Principal, action: str, resource: str, outcome: str) -> None:
    at.audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action=action,
        resource=resource,
        purpose=principal.purpose,
        outcome=outcome,
    )
