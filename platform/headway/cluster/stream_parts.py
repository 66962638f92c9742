"""What a stream is made of on a running platform; put together in the processes of its actors."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from headway.cluster.compose import Installation
from headway.cluster.history import backfill
from headway.cluster.tokens import TokenSource
from headway.core.errors import HeadwayError
from headway.features.definitions import EventSource, View
from headway.features.evolution import version_name
from headway.features.named import source_named
from headway.features.streams.parts import Parts
from headway.features.streams.segment import Limits

_LOG = logging.getLogger(__name__)
PURPOSE = "platform_operations"


def stream_parts(name: str) -> Parts:
    """Return what processors of a source's topic work with."""
    at = Installation.running(writer=f"stream-{name.lower()}")
    source = source_named(at.project, name)
    token = TokenSource(at.settings, sub="headway-stream", scopes=[f"ingest:{name}"], purpose=PURPOSE)
    return Parts(
        stream=at.stream,
        topic=name,
        source=source,
        views=views_of(at, source),
        committer=at.committer,
        online_url=at.settings.redis_features_url,
        history=at.lake_rows,
        refill=lambda views: backfill(at, views),
        control=at.control,
        clock=at.clock,
        principal=lambda: at.verifier.verify(token()),
        audit=at.audit,
        limits=Limits(),
    )


def views_of(at: Installation, source: EventSource, *, strict: bool = False) -> Sequence[View]:
    """Return every version of a view that some use case makes of the source and reads.

    A use case whose definitions are wrong must not stop the stream for the others: it is left out with a warning, or
    with `strict` its error is raised.
    """
    found: dict[str, View] = {}
    for use_case in at.project.use_cases():
        try:
            views = at.views(use_case)
        except HeadwayError as error:
            if strict:
                raise
            _LOG.warning("views of %s are not fed from the stream of %s: %s", use_case, source.name, error)
            continue
        found |= {version_name(view): view for view in views if view.source.name == source.name}
    return tuple(found.values())
