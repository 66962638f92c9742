"""What is known of a platform, with parts that are there and parts that are not."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster.catalogue import complete, registered
from headway.cluster.compose import Installation
from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.errors import Forbidden, Unavailable
from headway.core.project import Project
from headway.core.routing import VersionRef, promote
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.features.catalogue.registry import apply
from headway.features.lake.committer import Committer
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from headway.governance.registered_version import RegisteredVersion
from headway.governance.signing import Signer, TrustedKey, TrustRoot, generate_key
from headway.governance.statement import sign_version
from tests.training import world

SCOPES = frozenset({"data:read", "audit:read", "features:write", "registry:read"})
WHO = Principal(sub="ann", kind="human", scopes=SCOPES, purpose="p", expires=2**60)
STATEMENT: dict[str, Any] = {
    **{"git_sha": "", "lock_sha256": "", "feature_service": "shop_v1", "metrics": {"auc": 0.9}, "gates": ()},
    **dict.fromkeys(("contract_sha256", "kernel_sha256", "reference_profile_sha256"), "0" * 64),
    **{"input_schema": {}, "hardware": {"profile": "m", "tier": "cpu", "minimum_memory_bytes": 1}},
}


class Platform:
    """A project on disk, a lake, a registry with one signed version; no decisions yet."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.settings = Settings(home=folder / "home", project=folder)
        (folder / "serve_apps" / "shop").mkdir(parents=True)
        (folder / "serve_apps" / "shop" / "contract.yaml").write_text(world.CONTRACT)
        apply([world.shop_v1], self.settings, WHO, MemoryAudit(clock))
        writer = Committer(Location.of(self.settings), clock)
        self.snapshot = writer.append(world.visits, world.tables(50)["visits"], "first")
        generate_key(folder / "key.pem")
        signer = Signer(folder / "key.pem")
        key = TrustedKey(public=base64.b64encode(signer.public).decode(), roles=("model:sign",))
        version = folder / "version"
        version.mkdir()
        (version / "model.json").write_text("{}")
        named = {"name": "shop", "version": "4", "run_id": "r", "created": clock.now(), "expires": clock.now() + 1}
        sign_version(version, {**STATEMENT, **named, "snapshots": {"events.visits": 9}, "backend": "xgboost"}, signer)
        self.at = SimpleNamespace(
            settings=self.settings,
            clock=clock,
            project=Project(folder),
            control=MemoryControlStore(),
            trust=TrustRoot({signer.key_id: key}),
            online=SimpleNamespace(watermarks=lambda versions: dict.fromkeys(versions, clock.now())),
            registry=SimpleNamespace(
                versions=lambda case, who: [
                    RegisteredVersion(version="4", path=version, run_id="r", aliases=("champion",)),
                    RegisteredVersion(version="3", path=folder / "gone", run_id="q", state="failed"),
                ]
            ),
        )

    @property
    def installation(self) -> Installation:
        return cast(Installation, self.at)


@pytest.fixture
def platform(tmp_path: Path, clock: ManualClock) -> Platform:
    return Platform(tmp_path, clock)


@pytest.mark.slow
def test_registry_lake_store_and_models_come_together(platform: Platform) -> None:
    found = complete(platform.installation, WHO)
    assert found.notes == ()
    assert found.use_cases == {"shop": "shop_v1"}
    assert found.cases_of("shop_v1") == ["shop"]
    assert (found.tables["events.visits"].rows, found.tables["events.visits"].snapshot_id) == (50, platform.snapshot)
    assert found.watermarks == {found.views["activity"].version: "2018-08-08T00:00:00Z"}
    champion, failed = found.models
    assert (champion.service, champion.aliases, champion.snapshots) == ("shop_v1", ("champion",), {"events.visits": 9})
    assert (failed.state, failed.service, failed.snapshots) == ("failed", "", {})
    assert found.decisions == ()
    ref = VersionRef(version="4", path=str(platform.at.registry.versions("", WHO)[0].path), statement_sha256="0" * 64)
    promote(platform.at.control, "shop", ref, reason="test", by="ann", now=1)
    platform.at.registry = None  # is not asked
    assert complete(platform.installation, WHO, every_version=False).models == (champion,)


@pytest.mark.slow
def test_what_is_away_is_named_and_the_rest_shown(platform: Platform) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the online store cannot be reached", retry_after_s=1.0)

    platform.at.online.watermarks = away
    platform.at.registry.versions = away
    found = complete(platform.installation, WHO)
    assert [note.partition(" not shown")[0] for note in found.notes] == ["versions of shop", "watermarks"]
    assert found.tables
    assert found.views
    with pytest.raises(Forbidden, match="data:read"):
        complete(platform.installation, Principal(sub="x", kind="human", scopes=frozenset(), purpose="p", expires=1))
    alone = registered(platform.settings, now=0)
    assert (list(alone.views), alone.tables, alone.notes) == (["activity"], {}, ())
