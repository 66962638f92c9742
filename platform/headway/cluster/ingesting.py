"""Ingests rows of a source into the lake and the views made of it, with the installation's parts."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.core.types import Principal
from headway.features.backlog import Backlog
from headway.features.definitions import EventSource, View
from headway.features.ingest import IngestReport, ingest
from headway.features.quality.gate import Gate


def ingest_rows(
    at: Installation,
    source: EventSource,
    rows: pa.Table,
    views: Sequence[View],
    batch: str,
    *,
    principal: Principal,
    quality: Gate,
    watermark: int | None = None,
) -> IngestReport:
    """Do what `features.ingest.ingest` does; rows wait in the lake while the online store is away."""
    return ingest(
        source,
        rows,
        at.committer,
        at.online,
        views,
        batch,
        at.clock,
        principal=principal,
        audit=at.audit,
        watermark=watermark,
        backlog=Backlog(
            online=at.online,
            reader=at.reader,
            control=at.control,
            clock=at.clock,
            principal=lambda: at.workload("headway-materialize", ["data:read"], "model_training"),
        ),
        quality=quality,
    )
