"""What processors of a topic work with, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from headway.core.clock import Clock
from headway.core.control import ControlStore
from headway.core.errors import DefinitionError
from headway.core.types import Principal
from headway.features.definitions import EventSource, Overflow, View, WindowView
from headway.features.ingest import Appender
from headway.features.online_store import LakeRows
from headway.features.streams.port import EventStream
from headway.features.streams.segment import Limits
from headway.governance.audit_event import AuditSink


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What processors of a topic work with."""

    stream: EventStream
    topic: str
    source: EventSource
    views: Sequence[View]
    """All of the source."""
    committer: Appender
    online_url: str
    history: LakeRows | None
    """The lake's rows of some keys, for events that come after their tile; None: the views are exact."""
    refill: Callable[[Sequence[View]], object] | None
    """Writes the views from the lake, after the online store lost its state; None: a person has to."""
    control: ControlStore
    clock: Clock
    principal: Callable[[], Principal]
    """Who ingests, asked for each segment: needs `ingest:<source>`."""
    audit: AuditSink
    limits: Limits

    def __post_init__(self) -> None:
        """Refuse views that could turn away what the stream has taken."""
        require_lenient(self.views)


def require_lenient(views: Sequence[View]) -> None:
    """Raise DefinitionError for a view that could turn away what a stream has taken."""
    for view in views:
        if isinstance(view, WindowView) and view.exact and view.overflow is Overflow.REJECT:
            raise DefinitionError(
                "a stream cannot give an event back to its producer",
                field=f"{view.name}.overflow",
                expected=Overflow.DROP_OLDEST.value,
            )


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a processor is."""

    partition: int
    epoch: int
    position: int
    """The message that comes next."""
    checkpoint: int
    """Up to where lake and online store have everything."""
    watermark: int
    pending_rows: int
    """In the online store and not yet in the lake."""
    pending_bytes: int
    rows: int
    dead: int
    lost: int
    unknown: tuple[str, ...]
    """Fields in messages that the source does not have."""
    broken: tuple[str, ...] = ()
    """What many rows together break of what the source promises, in words."""
