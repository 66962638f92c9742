from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import CorruptState, DefinitionError, Forbidden
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.catalogue.registry import applied, apply, registry_path
from headway.features.definitions import Entity, FeatureService, RowView
from headway.governance.audit_event import MemoryAudit
from tests.features.histories import SERVICE
from tests.features.keyed import service_of
from tests.features.oracle import CARD, SOURCE, a_view, endless_view
from tests.ports import free_ports

pytestmark = pytest.mark.slow
WRITER = Principal(sub="w", kind="ci", scopes=frozenset({"features:write"}), purpose="testing", expires=2**60)


def test_services_are_read_back_and_replaced(tmp_path: Path, clock: ManualClock, analyst: Principal) -> None:
    settings, audit = Settings(home=tmp_path), MemoryAudit(clock)
    assert applied(settings) == []
    other = FeatureService(name="other", views=(endless_view(30),), request={})
    found = apply([SERVICE, other], settings, WRITER, audit)
    assert [entry.name for entry in found] == ["both", "other"]
    assert found[0].sha256 == SERVICE.sha256()
    assert found[0].features == list(SERVICE.features)
    assert [view["name"] for view in found[0].views] == ["activity", "ever", "by_shop"]
    assert found[0].entities == ["card", "shop"]
    apply([SERVICE], settings, WRITER, audit)
    changed = FeatureService(name="both", views=(a_view(7),), request={})
    assert apply([changed], settings, WRITER, audit)[0].sha256 == changed.sha256()
    with pytest.raises(Forbidden):
        apply([SERVICE], settings, analyst, audit)
    events = [(e.action, e.resource, e.outcome) for e in audit.events]
    assert events == [
        ("features.apply", "both", "done"),
        ("features.apply", "other", "done"),
        ("features.replace", "both", "done"),
        ("features.apply", "both", "denied"),
    ]
    assert audit.events[2].refs == (changed.sha256(), SERVICE.sha256())


def test_feast_itself_reads_the_registry(tmp_path: Path, clock: ManualClock) -> None:
    from feast.infra.registry.registry import Registry
    from feast.repo_config import RegistryConfig

    settings = Settings(home=tmp_path)
    apply([SERVICE], settings, WRITER, MemoryAudit(clock))
    registry = Registry("headway", RegistryConfig(path=str(registry_path(settings))), None)
    view = registry.get_feature_view("activity", "headway")
    assert [field.name for field in view.features] == list(a_view().features)
    assert view.join_keys == ["card"]


def test_a_view_keeps_its_entity_and_source(tmp_path: Path, clock: ManualClock) -> None:
    settings, audit = Settings(home=tmp_path), MemoryAudit(clock)
    apply([SERVICE], settings, WRITER, audit)
    moved = dataclasses.replace(a_view(), entity=Entity(name="payment", key="payment"))
    with pytest.raises(DefinitionError, match=r"view activity\.entity"):
        apply([FeatureService(name="other", views=(moved,), request={})], settings, WRITER, audit)
    assert [entry.name for entry in applied(settings)] == ["both"]


def test_row_views_are_registered_with_their_types(tmp_path: Path, clock: ManualClock) -> None:
    from feast.infra.registry.registry import Registry
    from feast.repo_config import RegistryConfig

    settings = Settings(home=tmp_path)
    view = RowView(name="latest", entity=CARD, source=SOURCE, columns=("payment", "amount"), ttl=1_000)
    apply([FeatureService(name="rows", views=(view,), request={})], settings, WRITER, MemoryAudit(clock))
    registry = Registry("headway", RegistryConfig(path=str(registry_path(settings))), None)
    fields = registry.get_feature_view("latest", "headway").features
    assert [(field.name, str(field.dtype)) for field in fields] == [
        ("latest__payment", "Int64"),
        ("latest__amount", "Float64"),
    ]


def test_one_name_means_one_view(tmp_path: Path, clock: ManualClock) -> None:
    clash = FeatureService(name="clash", views=(a_view(7),), request={})
    with pytest.raises(DefinitionError, match="activity"):
        apply([SERVICE, clash], Settings(home=tmp_path), WRITER, MemoryAudit(clock))


def test_a_broken_registry_is_kept_and_reported(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    registry_path(settings).parent.mkdir()
    registry_path(settings).write_bytes(b"\xff\xffnonsense")
    with pytest.raises(CorruptState, match="features apply"):
        applied(settings)
    assert registry_path(settings).read_bytes() == b"\xff\xffnonsense"


def test_composite_keys_and_aliases_in_feasts_own_terms(tmp_path: Path, clock: ManualClock) -> None:
    from feast.infra.registry.registry import Registry
    from feast.repo_config import RegistryConfig

    settings, service = Settings(home=tmp_path), service_of("user")
    (found,) = apply([service], settings, WRITER, MemoryAudit(clock))
    assert [view["name"] for view in found.views] == [view.name for view in service.stored]
    assert found.entities == ["place", "user"]
    registry = Registry("headway", RegistryConfig(path=str(registry_path(settings))), None)
    assert sorted(registry.get_feature_view("at_place", "headway").join_keys) == ["shop", "user"]
    assert {view.name for view in registry.list_feature_views("headway")} == {view.name for view in service.stored}
    joined = registry.get_feature_service("places", "headway").feature_view_projections
    assert [(each.name, each.name_to_use(), dict(each.join_key_map)) for each in joined][5:8] == [
        ("at_place", "home", {"shop": "home_shop"}),
        ("facts", "home_facts", {"shop": "home_shop"}),
        ("facts", "payee", {"user": "payee", "shop": "home_shop"}),
    ]


def test_an_alias_means_one_join_and_no_view(tmp_path: Path, clock: ManualClock) -> None:
    home = FeatureService(name="home", views=(a_view().aliased("home", key={"card": "home_card"}),), request={})
    for other in (
        a_view().aliased("home", key={"card": "house_card"}),
        a_view(name="home"),
        a_view(name="more").aliased("home", key={"card": "home_card"}),
    ):
        clash = FeatureService(name="clash", views=(other,), request={})
        with pytest.raises(DefinitionError, match="view home"):
            apply([home, clash], Settings(home=tmp_path), WRITER, MemoryAudit(clock))
    again = FeatureService(name="again", views=home.views, request={"amount": "float32"})
    assert len(apply([home, again], Settings(home=tmp_path), WRITER, MemoryAudit(clock))) == 2


def test_a_key_does_not_become_another(tmp_path: Path, clock: ManualClock) -> None:
    settings, service = Settings(home=tmp_path), service_of("user")
    apply([service], settings, WRITER, MemoryAudit(clock))
    turned = Entity(name="place", key=("shop", "user"), dtype="string")
    view = dataclasses.replace(service.stored[0], entity=turned)
    with pytest.raises(DefinitionError, match=r"view at_place\.key: was \['user', 'shop'\]"):
        apply([FeatureService(name="other", views=(view,), request={})], settings, WRITER, MemoryAudit(clock))


def test_what_people_read_is_replaced_without_a_new_hash(tmp_path: Path, clock: ManualClock) -> None:
    settings, audit = Settings(home=tmp_path), MemoryAudit(clock)
    (before,) = apply([SERVICE], settings, WRITER, audit)
    tagged = dataclasses.replace(SOURCE, tags={"card": ("pii",), "amount": ("financial",)}, owner="ops@example.com")
    views = tuple(
        dataclasses.replace(view, source=tagged) if view.source == SOURCE else view for view in SERVICE.stored
    )
    (after,) = apply([dataclasses.replace(SERVICE, views=views)], settings, WRITER, audit)
    assert after.sha256 == before.sha256
    assert before.card is not None
    assert before.card.tags == ()
    assert after.card is not None
    assert after.card.tags == ("financial", "pii")
    assert [event.action for event in audit.events] == ["features.apply", "features.replace"]
    (same,) = apply([dataclasses.replace(SERVICE, views=views)], settings, WRITER, audit)
    assert same == after
    assert len(audit.events) == 2


def test_reading_needs_no_feast(tmp_path: Path, clock: ManualClock) -> None:
    apply([SERVICE], Settings(home=tmp_path), WRITER, MemoryAudit(clock))
    script = (
        "import sys; from pathlib import Path; from headway.core.settings import Settings;"
        "from headway.features.catalogue.registry import applied;"
        f"print([e.name for e in applied(Settings(home=Path({str(tmp_path)!r})))], 'feast' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["['both']", "False"]


def test_the_folder_is_a_repository_that_feasts_ui_reads(tmp_path: Path, clock: ManualClock) -> None:
    from feast import FeatureStore

    tagged = dataclasses.replace(SOURCE, tags={"amount": ("financial",)}, owner="ops@example.com")
    view = dataclasses.replace(a_view(), source=tagged)
    settings = Settings(home=tmp_path)
    apply([FeatureService(name="one", views=(view,), request={})], settings, WRITER, MemoryAudit(clock))
    registry = FeatureStore(repo_path=str(registry_path(settings).parent)).registry
    assert [project.name for project in registry.list_projects()] == ["headway"]
    assert [entity.name for entity in registry.list_entities("headway")] == ["card"]
    assert sorted(source.name for source in registry.list_data_sources("headway")) == ["activity_events", "payments"]
    assert [service.name for service in registry.list_feature_services("headway")] == ["one"]
    (shown,) = registry.list_feature_views("headway")
    assert (shown.owner, shown.tags["sensitivity"]) == ("ops@example.com", "financial")
    assert shown.batch_source.tags == {"sensitivity": "financial"}
    described = {field.name: (field.description, field.tags) for field in shown.features}
    assert described["activity__amount_mean_10us"] == ("mean of amount, 10us", {"sensitivity": "financial"})
    assert described["activity__count_10us"] == ("number of events, 10us", {})


def test_feasts_ui_serves_the_registry(tmp_path: Path, clock: ManualClock) -> None:
    settings = Settings(home=tmp_path)
    apply([SERVICE], settings, WRITER, MemoryAudit(clock))
    (port,) = free_ports(1)
    command = [str(Path(sys.executable).parent / "feast"), "ui", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=registry_path(settings).parent, stdout=log, stderr=log)
    try:
        base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "feast ui does not answer"
            try:
                projects = httpx.get(f"{base}/projects-list.json").json()["projects"]
                break
            except httpx.TransportError:
                time.sleep(0.2)
        assert [project["id"] for project in projects] == ["headway"]
        assert "<div" in httpx.get(base).text
        for kind, names in (
            ("feature_views", {view.name for view in SERVICE.stored}),
            ("feature_services", {"both"}),
            ("data_sources", {"payments", "sales", "activity_events", "ever_events", "by_shop_events"}),
            ("entities", {"card", "shop"}),
        ):
            (found,) = (
                value
                for value in httpx.get(f"{base}/api/v1/{kind}", params={"project": "headway"}).json().values()
                if isinstance(value, list)
            )
            assert {(one.get("spec") or one)["name"] for one in found} == names, kind
    finally:
        server.terminate()
        server.wait(30)
