"""Brings a use case's history into the lake and its views into the online store; repeating it adds nothing twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.core.canonical import canonical, sha256
from headway.core.errors import InvalidValue, NotFound, Unavailable
from headway.core.progress import Progress
from headway.core.times import KNOWN_TIME
from headway.core.types import Principal
from headway.features.backlog import Backlog
from headway.features.definitions import View
from headway.features.history import History
from headway.features.ingest import ingest
from headway.features.materialize import materialize
from headway.features.quality.gate import QUARANTINED
from headway.features.write_report import WriteReport

_LOG = logging.getLogger(__name__)


def known_before(tables: Mapping[str, pa.Table], moment: int) -> dict[str, pa.Table]:
    """Return per source the rows known before `moment` (UTC microseconds)."""
    return {name: table.filter(pa.array(table[KNOWN_TIME].to_numpy() < moment)) for name, table in tables.items()}


def batch_name(use_case: str, seed: int, tables: Mapping[str, pa.Table], moment: int) -> str:
    """Return the name of the batch of everything known before `moment`: equal for equal histories."""
    rows = {name: table.num_rows for name, table in tables.items()}
    return sha256(canonical([use_case, seed, moment, rows]))[:16]


def ingest_tables(
    at: Installation,
    history: History,
    tables: Mapping[str, pa.Table],
    *,
    batch: str,
    watermark: int,
    principal: Principal,
) -> int:
    """Append rows of the use case's sources to the lake and update the views made from them; return the rows.

    A view that was never filled, while the lake has earlier rows of its source, is a new version: it gets all of them.
    So does a store that lost something. While it is away, rows wait in the lake and watermarks stay. A source whose
    batch is quarantined does not stop the others: InvalidValue is raised once they are ingested.

    Args:
        at: The installation.
        history: Names the sources.
        tables: Source name → rows.
        batch: Names the batch; the lake takes each batch once.
        watermark: The views are complete up to this known_time, UTC microseconds.
        principal: Who ingests; needs `ingest:<source>`.
    """
    views = at.views(history.use_case)
    sources = {source.name: source for source in history.sources}
    backlog = Backlog(
        online=at.online, reader=at.reader, control=at.control, clock=at.clock, principal=lambda: _worker(at)
    )
    refused: list[InvalidValue] = []
    for name, table in tables.items():
        try:
            ingest(
                sources[name],
                table,
                at.committer,
                at.online,
                [view for view in views if view.source.name == name],
                batch_id=f"{history.use_case}-{name}-{batch}",
                clock=at.clock,
                principal=principal,
                audit=at.audit,
                watermark=watermark,
                backlog=backlog,
                quality=at.quality,
            )
        except InvalidValue as error:
            if error.code != QUARANTINED:
                raise
            refused.append(error)
    try:
        for view in views:
            if view.source.name not in tables:
                _heartbeat(at, backlog, view, watermark)
    except Unavailable as error:
        _LOG.warning("watermarks stay where they are: %s", error)
    if refused:
        raise refused[0]
    return sum(int(table.num_rows) for table in tables.values())


def backfill(
    at: Installation, views: Sequence[View], *, known_by: int | None = None, progress: Progress | None = None
) -> dict[str, WriteReport]:
    """Write what the lake has of views to the online store, under the platform's own identity."""
    worker = _worker(at)
    return materialize(views, at.reader, at.online, worker, worker.purpose, known_by=known_by, progress=progress)


def fill_new(at: Installation, views: Sequence[View], *, progress: Progress | None = None) -> None:
    """Write to the online store what the lake has of views that it knows nothing of."""
    empty = [view for view in views if not at.online.watermark(view)]
    if empty:
        backfill(at, empty, progress=progress)


def _worker(at: Installation) -> Principal:
    return at.workload("headway-materialize", ["data:read"], "model_training")


def _heartbeat(at: Installation, backlog: Backlog, view: View, watermark: int) -> None:
    """Say that a view whose source brought nothing is complete, once it has what the lake has."""
    try:
        current = at.reader.snapshot(view.source)
    except NotFound:
        current = 0
    if backlog.lacks(view, current):
        backlog.catch_up(view, watermark)
    else:
        at.online.set_watermark(view, watermark)
