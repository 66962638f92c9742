"""Definitions in a Feast registry: the catalogue that people and tools browse, with the hash that models are bound to.

Feast writes the registry file, with a `feature_store.yaml` beside it, so that `feast ui` shows the same. It is imported
inside the functions that write, because that takes many seconds; reading does without.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from headway.core.canonical import canonical
from headway.core.errors import AccessError, DefinitionError, NotFound
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.catalogue.card import ServiceCard, service_card
from headway.features.catalogue.registry_file import read_services
from headway.features.definitions import FeatureService
from headway.features.evolution import require_compatible
from headway.features.feast.objects import entities_of, feast_table, joined, marks
from headway.features.lake.schema import require_sources
from headway.features.lake.tables import Location
from headway.governance.audit_event import AuditSink
from headway.governance.files import PUBLIC, write_atomic

PROJECT = "headway"
SHA256 = "headway_sha256"
DEFINITION = "headway_definition"
CARD = "headway_card"
_REPOSITORY = """\
# The repository of the registry beside it: `feast ui` and Feast's SDK read it. Written by `headway features apply`.
project: {project}
provider: local
registry: {registry}
online_store: null
entity_key_serialization_version: 3
"""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A feature service as the registry holds it."""

    name: str
    sha256: str
    """Hash of the definition."""
    features: list[str]
    """Model input in order."""
    views: list[dict[str, Any]]
    """As described in the definition."""
    entities: list[str]
    description: str = ""
    card: ServiceCard | None = None
    """What it is to people; None where an earlier version wrote the registry."""


def registry_path(settings: Settings) -> Path:
    """Return the registry file."""
    return settings.home / "feast" / "registry.db"


def apply(
    services: Sequence[FeatureService], settings: Settings, principal: Principal, audit: AuditSink
) -> list[Applied]:
    """Write services with their entities and views, and return what the registry holds then.

    Needs the scope `features:write`. A service of the same name with another definition is replaced; the audit event
    carries both hashes. One that is there already is left alone; where only
    what people read of it is new, its hash stays.

    Raises:
        Forbidden: Without the scope; recorded.
        DefinitionError: Where two services mean different views by one name, a view of a known name is about
            another entity or source, or a source changed otherwise than its table in the lake can grow.
    """
    _unambiguous(services)
    try:
        principal.require("features", "write")
    except AccessError:
        for service in services:
            _record(audit, principal, service.name, "features.apply", "denied", ())
        raise
    before = applied(settings)
    _compatible(services, before)
    sources = {view.source.name: view.source for service in services for view in service.stored}
    require_sources(Location.of(settings), sources.values())
    known = {entry.name: entry.sha256 for entry in before}
    cards = {entry.name: entry.card for entry in before}
    changed = [
        service
        for service in services
        if known.get(service.name) != service.sha256() or cards[service.name] != service_card(service)
    ]
    if changed:
        _write(changed, settings)
    for service in changed:
        old = known.get(service.name)
        action = "features.apply" if old is None else "features.replace"
        refs = (service.sha256(),) if old is None else (service.sha256(), old)
        _record(audit, principal, service.name, action, "done", refs)
    return applied(settings)


def applied(settings: Settings) -> list[Applied]:
    """Return the services in the registry, by name; CorruptState if its file cannot be read."""
    found = []
    for service in read_services(registry_path(settings), PROJECT):
        try:
            definition = json.loads(service.tags[DEFINITION])
            views = definition["views"]
            entry = Applied(
                name=service.name,
                sha256=service.tags[SHA256],
                features=definition["features"],
                views=views,
                entities=list(dict.fromkeys(view["entity"] for view in views)),
                description=service.description,
                card=_card(service.tags.get(CARD)),
            )
        except (KeyError, TypeError, ValueError):
            continue  # a service that another tool put there
        found.append(entry)
    return sorted(found, key=lambda entry: entry.name)


def feast_view(name: str, settings: Settings) -> Any:
    """Return a view as Feast knows it; NotFound where none was applied."""
    with warnings.catch_warnings():  # its import turns every deprecation warning of the process on
        from feast.errors import FeatureViewNotFoundException

    known = []
    if registry_path(settings).exists():
        registry = _registry(settings)
        try:
            return registry.get_feature_view(name, PROJECT)
        except FeatureViewNotFoundException:
            known = [view.name for view in registry.list_feature_views(PROJECT)]
    raise NotFound("feature view", name, known=known)


def _card(text: str | None) -> ServiceCard | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=ServiceCard)
    except msgspec.DecodeError:
        return None  # of another version


def _write(services: Sequence[FeatureService], settings: Settings) -> None:
    path = registry_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(
        path.with_name("feature_store.yaml"),
        _REPOSITORY.format(project=PROJECT, registry=path.name).encode(),
        mode=PUBLIC,
    )
    registry = _registry(settings)
    import feast

    warehouse = Location.of(settings).warehouse
    for service in services:
        for entity in service.entities:
            for part in entities_of(entity):
                registry.apply_entity(part, PROJECT, commit=False)
        views = {view.name: feast_table(view, warehouse) for view in service.stored}
        for view in views.values():
            for source in (view.batch_source, view.stream_source):
                registry.apply_data_source(source, PROJECT, commit=False)
            registry.apply_feature_view(view, PROJECT, commit=False)
        card = service_card(service)
        tags = {
            SHA256: service.sha256(),
            DEFINITION: canonical(service.describe()).decode(),
            CARD: msgspec.json.encode(card).decode(),
            **marks(card.tags),
        }
        registry.apply_feature_service(
            feast.FeatureService(
                name=service.name,
                features=[joined(view, views[view.stored.name]) for view in service.views],
                tags=tags,
                description=service.description,
            ),
            PROJECT,
            commit=False,
        )
    registry.commit()


def _registry(settings: Settings) -> Any:
    with warnings.catch_warnings():  # its import turns every deprecation warning of the process on
        import feast  # noqa: F401
    from feast.infra.registry.registry import Registry
    from feast.repo_config import RegistryConfig

    path = registry_path(settings)
    return Registry(PROJECT, RegistryConfig(path=str(path), cache_ttl_seconds=0), path.parent)


def _unambiguous(services: Sequence[FeatureService]) -> None:
    seen: dict[str, tuple[str, bytes]] = {}
    for service in services:
        described = service.describe()
        joins = [join for join in described.get("joins", ()) if join["name"] != join["view"]]
        for view in (*described["views"], *joins):
            text = canonical(view)
            owner, other = seen.setdefault(view["name"], (service.name, text))
            if other != text:
                raise DefinitionError(
                    f"{owner} and {service.name} mean different things by it",
                    field=f"view {view['name']}",
                    expected="one definition per name",
                )


def _compatible(services: Sequence[FeatureService], before: Sequence[Applied]) -> None:
    old = {view["name"]: view for entry in before for view in entry.views}
    for service in services:
        for view in service.stored:
            if view.name in old:
                require_compatible(old[view.name], view.describe())


def _record(
    audit: AuditSink, principal: Principal, name: str, action: str, outcome: str, refs: tuple[str, ...]
) -> None:
    audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action=action,
        resource=name,
        purpose=principal.purpose,
        outcome=outcome,
        refs=refs,
    )
