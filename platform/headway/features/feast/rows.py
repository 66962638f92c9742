"""Where the rows of a Feast view lie online, and what is written for them: keys, times, expiry, and Feast's own layout.

A row's key names project, view and entity key, the latter as Feast serializes it. The features that rows of a view hold
are written once per set of features, so that rows from before a change of the view stay readable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from feast import utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key, compute_versioned_name
from google.protobuf.timestamp_pb2 import Timestamp

from headway.core.times import SECOND
from headway.features.feast import values as feast_values
from headway.features.feast.server import Write
from headway.features.status import SLACK


def keys_of(config: Any, table: Any, entity_keys: Iterable[Any]) -> list[bytes]:
    """Return the keys of a view's rows."""
    start, version = prefix(config, table), config.entity_key_serialization_version
    return [start + serialize_entity_key(entity_key, version) for entity_key in entity_keys]


def prefix(config: Any, table: Any) -> bytes:
    """Return what the keys of a view's rows begin with."""
    return f"headway:o:{config.project}:{_name(config, table)}:".encode()


def schema_key(config: Any, table: Any, schema: bytes) -> bytes:
    """Return the key that says which features rows of a schema hold."""
    return f"headway:s:{config.project}:{_name(config, table)}:".encode() + schema.hex().encode()


def schema_of(config: Any, table: Any) -> tuple[bytes, bytes]:
    """Return the key and value that say which features the view's rows hold."""
    names = features(table)
    return schema_key(config, table, feast_values.schema_id(names)), json.dumps(names).encode()


def features(table: Any) -> tuple[str, ...]:
    """Return the names of a view's features."""
    return tuple(feature.name for feature in table.features)


def ttl(table: Any) -> int | None:
    """Return the view's ttl in microseconds; None: for ever."""
    span = getattr(table, "ttl", None)
    return _whole(span) if span else None


def writes(config: Any, table: Any, data: Iterable[Any], now: int) -> list[Write]:
    """Return keys and script arguments of the newest row per entity; a missing created_ts is the event_ts."""
    names, lifetime = features(table), ttl(table)
    start, version = prefix(config, table), config.entity_key_serialization_version
    best: dict[bytes, tuple[tuple[int, int], Any, Any]] = {}
    for entity_key, values, event_ts, created_ts in data:
        event = _microseconds(event_ts)
        rank = (event, event if created_ts is None else _microseconds(created_ts))
        key = start + serialize_entity_key(entity_key, version)
        if key not in best or rank >= best[key][0]:
            best[key] = (rank, values, entity_key)
    rows: list[Write] = []
    for key, ((event, created), values, entity_key) in best.items():
        keys: tuple[bytes, ...] = (key,)
        arguments = [feast_values.pack(names, values, event, created), _expiry(lifetime, event, now)]
        if config.online_store.dual_write:
            keys = (key, _redis_key(config.project, entity_key, version))
            arguments += _copy(_name(config, table), names, values, event, lifetime)
        rows.append((keys, arguments))
    return rows


def moment(microseconds: int) -> datetime:
    """Return a time in UTC."""
    return datetime.fromtimestamp(microseconds // SECOND, UTC).replace(microsecond=microseconds % SECOND)


def pattern(text: bytes) -> bytes:
    """Return a pattern of the keys that begin with a text."""
    parts = (text[i : i + 1] for i in range(len(text)))
    return b"".join(b"\\" + part if part in b"*?[]\\^" else part for part in parts) + b"*"


def _expiry(lifetime: int | None, event: int, now: int) -> bytes:
    """Return when a key may go, ms since 1970; 0: never. The check at read tells expired rows, not this."""
    return b"0" if lifetime is None else b"%d" % ((max(event + lifetime, now) + SLACK) // 1_000)


def _copy(name: str, names: Sequence[str], values: Any, event: int, lifetime: int | None) -> list[bytes]:
    """Return the row in Feast's layout: when its fields go, ms since 1970 (0: never), then fields and values.

    Feast's own readers know no ttl, so the fields go when it ends.
    """
    stamp = Timestamp()
    stamp.FromMicroseconds(event)
    fields = [b"0" if lifetime is None else b"%d" % max((event + lifetime) // 1_000 + 1, 1)]
    fields += [f"_ts:{name}".encode(), stamp.SerializeToString()]
    for feature in names:
        value = values.get(feature)
        fields += [_mmh3(f"{name}:{feature}"), b"" if value is None else value.SerializeToString()]
    return fields


def _name(config: Any, table: Any) -> str:
    return str(compute_versioned_name(table, config.registry.enable_online_feature_view_versioning))


def _whole(span: timedelta) -> int:
    """Return microseconds."""
    return (span.days * 86_400 + span.seconds) * SECOND + span.microseconds


def _microseconds(time: datetime) -> int:
    return _whole(utils.make_tzaware(time) - datetime(1970, 1, 1, tzinfo=UTC))
