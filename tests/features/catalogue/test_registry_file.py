from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.errors import CorruptState
from headway.features.catalogue.registry_file import read_services


def test_what_feast_wrote_is_read_without_it(tmp_path: Path) -> None:
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry(registry_schema_version="1")
    for project, name in (("headway", "one"), ("other", "two"), ("headway", "three")):
        service = registry.feature_services.add()
        service.spec.name, service.spec.project = name, project
        service.spec.description = f"é of {name}"
        service.spec.owner = "someone"
        service.spec.tags.update({"a": "1", name: "{}"})
        service.spec.features.add().feature_view_name = "view"
        service.meta.created_timestamp.GetCurrentTime()
    registry.entities.add().spec.name = "card"
    registry.last_updated.GetCurrentTime()
    path = tmp_path / "registry.db"
    path.write_bytes(registry.SerializeToString())
    found = read_services(path, "headway")
    assert [(one.name, one.description) for one in found] == [("one", "é of one"), ("three", "é of three")]
    assert found[1].tags == {"a": "1", "three": "{}"}


def test_no_file_has_no_services_and_another_file_is_named(tmp_path: Path) -> None:
    assert read_services(tmp_path / "none", "headway") == []
    path = tmp_path / "registry.db"
    path.write_bytes(b"\xff\xffnonsense")
    with pytest.raises(CorruptState, match=r"registry\.db is not a Feast registry"):
        read_services(path, "headway")
