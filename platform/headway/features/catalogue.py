"""Definitions in a Feast registry: the catalogue that people and tools browse, with the hash that models are bound to.

Only the registry file is used. Feast is imported inside the functions, because it takes seconds; replicas never do.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headway.core.canonical import canonical
from headway.core.errors import AccessError, CorruptState, DefinitionError, NotFound
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.definitions import AliasedView, Entity, FeatureService, RowView, View
from headway.features.evolution import require_compatible
from headway.features.lake import Location
from headway.governance.audit_event import AuditSink

if TYPE_CHECKING:
    import feast

PROJECT = "headway"
SHA256 = "headway_sha256"
DEFINITION = "headway_definition"


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


def registry_path(settings: Settings) -> Path:
    """Return the registry file."""
    return settings.home / "feast" / "registry.db"


def apply(
    services: Sequence[FeatureService], settings: Settings, principal: Principal, audit: AuditSink
) -> list[Applied]:
    """Write services with their entities and views, and return what the registry holds then.

    Needs the scope `features:write`. A service of the same name with another definition is replaced; the audit event
    carries both hashes. One that is there already is left alone.

    Raises:
        Forbidden: Without the scope; recorded.
        DefinitionError: Where two services mean different views by one name, or a view of a known name is about
            another entity or source.
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
    known = {entry.name: entry.sha256 for entry in before}
    changed = [service for service in services if known.get(service.name) != service.sha256()]
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
    if not registry_path(settings).exists():
        return []
    found = []
    for service in _read(settings):
        try:
            definition = json.loads(service.tags[DEFINITION])
            views = definition["views"]
            entities = list(dict.fromkeys(view["entity"] for view in definition["views"]))
            entry = Applied(
                name=service.name,
                sha256=service.tags[SHA256],
                features=definition["features"],
                views=views,
                entities=entities,
                description=service.description,
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


def _read(settings: Settings) -> list[feast.FeatureService]:
    from google.protobuf.message import DecodeError

    try:
        services: list[feast.FeatureService] = _registry(settings).list_feature_services(PROJECT)
    except DecodeError:
        raise CorruptState(
            f"{registry_path(settings)} is not a Feast registry",
            hint="move the file away and run: headway features apply",
        ) from None
    return services


def _write(services: Sequence[FeatureService], settings: Settings) -> None:
    registry_path(settings).parent.mkdir(parents=True, exist_ok=True)
    registry = _registry(settings)
    import feast

    for service in services:
        for entity in service.entities:
            for part in _entities(entity):
                registry.apply_entity(part, PROJECT, commit=False)
        views = {view.name: _view(view, settings) for view in service.stored}
        for view in views.values():
            registry.apply_feature_view(view, PROJECT, commit=False)
        tags = {SHA256: service.sha256(), DEFINITION: canonical(service.describe()).decode()}
        registry.apply_feature_service(
            feast.FeatureService(
                name=service.name,
                features=[_joined(view, views[view.stored.name]) for view in service.views],
                tags=tags,
                description=service.description,
            ),
            PROJECT,
            commit=False,
        )
    registry.commit()


def _view(view: View, settings: Settings) -> Any:
    import feast
    from feast.types import Bool, Float32, Float64, Int64, String, UnixTimestamp

    types = {"int64": Int64, "float32": Float32, "float64": Float64, "string": String, "bool": Bool}
    types["timestamp"] = UnixTimestamp
    dtypes = view.dtypes if isinstance(view, RowView) else ["float32"] * len(view.features)
    keys = view.entity
    warehouse = Location.of(settings).warehouse
    batch = feast.FileSource(
        name=view.source.name,
        path=f"{warehouse}/{view.source.table.replace('.', '/')}",
        timestamp_field="event_time",
        created_timestamp_column="known_time",
        owner=view.source.owner,
        description=view.source.description,
    )
    return feast.FeatureView(
        name=view.name,
        entities=_entities(view.entity),
        ttl=timedelta(microseconds=view.horizon or 0),
        schema=[
            *(feast.Field(name=key, dtype=types[dtype]) for key, dtype in zip(keys.keys, keys.dtypes, strict=True)),
            *(feast.Field(name=name, dtype=types[dtype]) for name, dtype in zip(view.features, dtypes, strict=True)),
        ],
        source=feast.PushSource(name=f"{view.name}_events", batch_source=batch),
        owner=view.owner,
        description=view.description,
        tags={"engine": "headway", **({} if isinstance(view, RowView) else {"as_of": "write"})},
    )


def _joined(view: View | AliasedView, stored: Any) -> Any:
    """Return a Feast view as the service joins it: under its alias, by the alias's columns."""
    if not isinstance(view, AliasedView):
        return stored
    return stored.with_name(view.name).with_join_key_map(dict(view.key))


def _entities(entity: Entity) -> list[Any]:
    """Return an entity as Feast knows it, where it has one key column only: of a composite key, one per column."""
    import feast

    kinds = {"string": feast.ValueType.STRING, "int64": feast.ValueType.INT64}
    one = len(entity.keys) == 1
    return [
        feast.Entity(
            name=entity.name if one else f"{entity.name}.{key}",
            join_keys=[key],
            value_type=kinds[dtype],
            description=entity.description,
        )
        for key, dtype in zip(entity.keys, entity.dtypes, strict=True)
    ]


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
