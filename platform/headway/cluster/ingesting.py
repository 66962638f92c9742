"""Ingests rows of a source into the lake and every view that some use case makes of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.core.errors import HeadwayError
from headway.core.types import Principal
from headway.features.backlog import Backlog
from headway.features.definitions import EventSource, View
from headway.features.evolution import version_name
from headway.features.ingest import IngestReport, ingest
from headway.features.quality.gate import Gate

_LOG = logging.getLogger(__name__)


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


def views_of(at: Installation, source: EventSource) -> Sequence[View]:
    """Return every version of a view that some use case makes of the source and reads.

    A use case whose definitions are wrong must not stop the others: it is left out with a warning.
    """
    found: dict[str, View] = {}
    for use_case in at.project.use_cases():
        try:
            views = at.views(use_case)
        except HeadwayError as error:
            _LOG.warning("views of %s are not fed from %s: %s", use_case, source.name, error)
            continue
        found |= {version_name(view): view for view in views if view.source.name == source.name}
    return tuple(found.values())
