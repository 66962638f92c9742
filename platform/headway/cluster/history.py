"""Brings a use case's history into the lake and its views into the online store; repeating it adds nothing twice."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.core.canonical import canonical, sha256
from headway.core.times import KNOWN_TIME
from headway.core.types import Principal
from headway.features.history import History
from headway.features.ingest import ingest


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

    Args:
        at: The installation.
        history: Names the sources.
        tables: Source name → rows.
        batch: Names the batch; the lake takes each batch once.
        watermark: The views are complete up to this known_time, UTC microseconds.
        principal: Who ingests; needs `ingest:<source>`.
    """
    views = at.service(history.use_case).views
    sources = {source.name: source for source in history.sources}
    for name, table in tables.items():
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
        )
    for view in views:
        at.online.set_watermark(view, watermark)
    return sum(int(table.num_rows) for table in tables.values())
