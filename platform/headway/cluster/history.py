"""Brings a use case's history into the lake and its view state into the online store; repeating it adds nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.cluster.demo.plan import history_until
from headway.core.canonical import canonical, sha256
from headway.core.progress import Stage
from headway.core.types import Principal
from headway.features.history import History
from headway.features.ingest import ingest


def ingest_tables(
    at: Installation, use_case: str, tables: Mapping[str, pa.Table], *, batch: str, watermark: int, principal: Principal
) -> int:
    """Append rows of the use case's sources and update the views made from them; return the rows.

    The batch name makes the call idempotent: the same batch is appended once.
    """
    service = at.service(use_case)
    sources = {source.name: source for source in at.history(use_case).sources}
    rows = 0
    for name, table in tables.items():
        views = tuple(view for view in service.views if view.source.name == name)
        ingest(
            sources[name],
            table,
            committer=at.committer,
            online=at.online,
            views=views,
            batch_id=f"{use_case}-{name}-{batch}",
            clock=at.clock,
            principal=principal,
            audit=at.audit,
            watermark=watermark,
        )
        rows += table.num_rows
    for view in service.views:
        at.online.set_watermark(view, watermark)
    return rows


def load_history(
    at: Installation, history: History, tables: Mapping[str, pa.Table], *, until: int, seed: int, principal: Principal,
    stage: Stage,
) -> int:
    """Ingest everything known before `until` (UTC microseconds) and return the rows."""
    past = history_until(tables, until)
    batch = sha256(canonical([history.use_case, seed, until, {name: table.num_rows for name, table in past.items()}]))
    rows = ingest_tables(at, history.use_case, past, batch=batch[:16], watermark=until, principal=principal)
    stage.note(f"{rows:,} rows")
    return rows
