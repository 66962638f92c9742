"""The feature services of a Feast registry file, read without Feast, whose import takes many seconds.

A registry is one protocol buffer. Only the fields that are read here are described, by their numbers in Feast 0.67's
`Registry.proto` and `FeatureService.proto`; all others are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from headway.core.errors import CorruptState

_STRING, _MESSAGE = 9, 11
_ONE, _MANY = 1, 3
_FIELDS: Mapping[str, tuple[tuple[str, int, int, int, str], ...]] = {
    "Registry": (("feature_services", 7, _MANY, _MESSAGE, "FeatureService"),),
    "FeatureService": (("spec", 1, _ONE, _MESSAGE, "FeatureServiceSpec"),),
    "FeatureServiceSpec": (
        ("name", 1, _ONE, _STRING, ""),
        ("project", 2, _ONE, _STRING, ""),
        ("tags", 4, _MANY, _MESSAGE, "Tag"),
        ("description", 5, _ONE, _STRING, ""),
    ),
    "Tag": (("key", 1, _ONE, _STRING, ""), ("value", 2, _ONE, _STRING, "")),
}
"""Message → its fields: name, number, label, type, message type. On the wire a map is a list of pairs."""


@dataclass(frozen=True, kw_only=True)
class RegisteredService:
    """A feature service as the file holds it."""

    name: str
    description: str
    tags: Mapping[str, str]


def read_services(path: Path, project: str) -> list[RegisteredService]:
    """Return the services of a project, none where there is no file; CorruptState where it is no registry."""
    from google.protobuf.message import DecodeError

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        registry = _registry_class().FromString(content)
    except DecodeError:
        raise CorruptState(
            f"{path} is not a Feast registry", hint="move the file away and run: headway features apply"
        ) from None
    specs = [service.spec for service in registry.feature_services]
    return [
        RegisteredService(name=spec.name, description=spec.description, tags={tag.key: tag.value for tag in spec.tags})
        for spec in specs
        if spec.project == project
    ]


@cache
def _registry_class() -> Any:
    """Return the message class, in a pool of its own: Feast may define the same names in this process."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="headway_registry.proto", package="headway.registry", syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind, inner in fields:
            added = message.field.add(name=field, number=number, label=label, type=kind)
            if inner:
                added.type_name = f".headway.registry.{inner}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("headway.registry.Registry"))
