"""What stands behind the ports of a replica, opened together and closed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from headway.core.clock import Clock
from headway.core.control import ControlStore, RedisControlStore
from headway.core.counts import CountsChannel, RedisCountsChannel
from headway.core.settings import Settings
from headway.core.times import MINUTE
from headway.core.types import Principal
from headway.features.definitions import FeatureService
from headway.features.lake.reader import LakeReader
from headway.features.online import OnlineReader
from headway.features.recompute import LakeFeatures
from headway.governance.audit import AuditLog
from headway.governance.audit_event import AuditSink
from headway.governance.identity import verifier_from
from headway.serving.host import Load
from headway.serving.recomputing import Lake
from headway.serving.scoring import Reader
from headway.serving.service import Verifier
from headway.serving.sharing import Meeting
from headway.serving.terms import Terms

_READ_S = 0.5
"""The longest wait for the online store; a shorter patience halves."""


class Link(Protocol):
    """A connection of the event loop."""

    async def close(self) -> None:
        """Close it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Drivers:
    """The drivers of one replica."""

    store: ControlStore
    channel: CountsChannel
    reader: Reader
    verifier: Verifier
    load: Load
    clock: Clock
    audit: AuditSink | None = None
    """Where reasons are recorded before they are told; None: no reasons are given."""
    lake: Lake | None = None
    """Where stale features are recomputed; needed where the contract says so."""
    meeting: Meeting | None = None
    """Where replicas share limits and idempotency keys; None: each has its own."""
    links: Sequence[Link] = ()
    """What is closed on the event loop."""
    opened: ExitStack = field(default_factory=ExitStack)
    """Closes the rest; what a caller made itself is the caller's."""

    async def leave(self) -> None:
        """Close what lives on the event loop."""
        for link in self.links:
            await link.close()

    def close(self) -> None:
        """Close the rest. Blocking."""
        self.opened.close()


def open_drivers(
    use_case: str,
    settings: Settings,
    service: FeatureService,
    terms: Terms,
    *,
    replica: str,
    load: Load,
    audit: AuditLog,
    clock: Clock,
) -> Drivers:
    """Return the drivers that settings name; nothing stays open where one cannot be opened."""
    with ExitStack() as opening:
        store = RedisControlStore(settings.redis_control_url)
        opening.callback(store.close)
        channel = RedisCountsChannel(settings.redis_control_url)
        opening.callback(channel.close)
        reader = OnlineReader(service, settings.redis_features_url, timeout_s=min(_READ_S, terms.patience_s / 2))
        meeting = Meeting.at(settings.redis_features_url, use_case, replica)
        verifier = verifier_from(settings, clock)
        opening.callback(verifier.close)
        return Drivers(
            store=store,
            channel=channel,
            reader=reader,
            verifier=verifier,
            load=load,
            clock=clock,
            audit=audit,
            lake=LakeFeatures(service, lambda: LakeReader(settings, audit, clock), _reads_for(use_case, terms, clock)),
            meeting=meeting,
            links=(reader, meeting),
            opened=opening.pop_all(),
        )


def _reads_for(use_case: str, terms: Terms, clock: Clock) -> Callable[[], Principal]:
    def principal() -> Principal:
        """Return who recomputes: the replica, for the purpose of the contract whose signatures allow it."""
        return Principal(
            sub=f"replica:{use_case}",
            kind="workload",
            scopes=frozenset({"data:read"}),
            purpose=terms.purposes[0],
            expires=clock.now() + MINUTE,
        )

    return principal
