"""Attacks on a signed version, each against the replica that is told to load it: refused unparsed, and on record."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.core.canonical import sha256
from headway.core.clock import ManualClock
from headway.core.control import MemoryControlStore
from headway.core.counts import MemoryCountsChannel
from headway.core.errors import EvidenceError, NotSigned, Tampered
from headway.core.routing import VersionRef, promote
from headway.core.settings import Settings, load_settings
from headway.core.times import DAY, MINUTE
from headway.features.profile import build_profile
from headway.governance.audit_event import MemoryAudit
from headway.governance.keys import MODEL_SIGN, development_keys, signer_for, trust_root
from headway.governance.signing import MAX_ENVELOPE, Envelope, Signature, Signer, TrustedKey, TrustRoot, generate_key
from headway.governance.statement import PAYLOAD_TYPE, STATEMENT, read_statement, sign_version
from headway.serving import loading
from headway.serving.host import ModelHost
from tests.serving.helpers import run

NOW = 1_768_478_400_000_000
KERNEL = sha256(b"kernel")
PROFILE = build_profile(np.zeros((4, 2), np.float32), ["a", "b"], np.zeros(4, np.float32))
SERVICE: Any = SimpleNamespace(name="toy_v1", features=("a", "b"))
FIELDS: dict[str, Any] = {
    "name": "toy", "created": NOW, "expires": NOW + 90 * DAY, "run_id": "r", "git_sha": "0" * 40,
    "lock_sha256": sha256(b"lock"), "contract_sha256": sha256(b"contract"), "kernel_sha256": KERNEL, "snapshots": {},
    "feature_service": "toy_v1", "metrics": {}, "gates": [], "reference_profile_sha256": PROFILE.sha256(),
    "input_schema": {}, "hardware": {"profile": "", "tier": "cpu", "minimum_memory_bytes": 0}, "backend": "onnx",
}  # fmt: skip


@dataclass
class World:
    """Version 3, which serves, and version 4, which is attacked before the replica is told to load it."""

    settings: Settings
    clock: ManualClock
    audit: MemoryAudit
    parsed: list[str]
    pinned: str = ""
    """The statement that routing names; the attacker wrote it too where an attack sets it."""

    @property
    def serving(self) -> Path:
        return self.settings.home / "3"

    @property
    def attacked(self) -> Path:
        return self.settings.home / "4"

    @property
    def signer(self) -> Signer:
        return signer_for(self.settings, MODEL_SIGN)

    def sign(self, folder: Path, signer: Signer | None = None, **changes: Any) -> Envelope:
        return sign_version(folder, {**FIELDS, "version": folder.name, **changes}, signer or self.signer)

    def write(self, envelope: Envelope) -> None:
        """Put a statement of the attacker's making in place, and let routing name it."""
        (self.attacked / STATEMENT).write_bytes(envelope.to_json())
        self.pinned = envelope.payload_sha256

    def ref(self, folder: Path) -> VersionRef:
        pinned = self.pinned if folder == self.attacked and self.pinned else read_statement(folder).payload_sha256
        return VersionRef(version=folder.name, path=str(folder), statement_sha256=pinned)

    def load(self) -> Callable[[VersionRef], Any]:
        return loading.loader(
            "toy", SERVICE, lambda: trust_root(self.settings), self.audit, purpose="tests", clock=self.clock
        )

    def key(self, name: str) -> Signer:
        """Return a key that the trust root does not know."""
        generate_key(self.settings.home / f"{name}.pem")
        return Signer(self.settings.home / f"{name}.pem")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    home = tmp_path / "home"
    home.mkdir()
    development_keys(home, ["contract:sign:risk"])
    clock = ManualClock(NOW + MINUTE)
    made = World(settings=load_settings(home=home), clock=clock, audit=MemoryAudit(clock), parsed=[])
    for folder in (made.serving, made.attacked):
        (folder / "tables").mkdir(parents=True)
        (folder / "model.onnx").write_bytes(f"model {folder.name}".encode())
        (folder / "tables" / "profile.json").write_bytes(b"{}")
        made.sign(folder)
    made.pinned = read_statement(made.attacked).payload_sha256

    def parse(folder: Path, statement: Any) -> Any:
        made.parsed.append(folder.name)
        schema = SimpleNamespace(names=SERVICE.features, features=())
        return SimpleNamespace(backend=None, profile=PROFILE, statement=statement, input_schema=schema)

    monkeypatch.setattr(loading, "load_artefact", parse)
    monkeypatch.setattr(loading, "kernel_sha256", lambda service: KERNEL)
    return made


def flipped(world: World) -> None:
    data = bytearray((world.attacked / "model.onnx").read_bytes())
    data[0] ^= 1
    (world.attacked / "model.onnx").write_bytes(bytes(data))


def put(path: str, data: bytes = b"x") -> Callable[[World], None]:
    def change(world: World) -> None:
        target = world.attacked / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    return change


def linked(world: World) -> None:
    (world.attacked / "model.onnx").rename(world.settings.home / "elsewhere")
    (world.attacked / "model.onnx").symlink_to(world.settings.home / "elsewhere")


def linked_version(world: World) -> None:
    world.attacked.rename(world.settings.home / "elsewhere")
    world.attacked.symlink_to(world.settings.home / "elsewhere")


def folder_for_file(world: World) -> None:
    (world.attacked / "model.onnx").unlink()
    put("model.onnx/model.onnx", b"model 4")(world)


def renamed_case(world: World) -> None:
    (world.attacked / "model.onnx").rename(world.attacked / "Model.onnx")


def replayed(world: World) -> None:
    """The older version's whole folder under the new number; routing still names the new statement."""
    shutil.rmtree(world.attacked)
    shutil.copytree(world.serving, world.attacked)


def replayed_with_routing(world: World) -> None:
    replayed(world)
    world.pinned = read_statement(world.attacked).payload_sha256


def swapped_files(world: World) -> None:
    for one, other in ((world.serving, world.attacked),):
        mine, theirs = one / "model.onnx", other / "model.onnx"
        first, second = mine.read_bytes(), theirs.read_bytes()
        theirs.write_bytes(first)
        assert first != second


def swapped_statement(world: World) -> None:
    shutil.copy(world.serving / STATEMENT, world.attacked / STATEMENT)


def swapped_statement_with_routing(world: World) -> None:
    swapped_statement(world)
    world.pinned = read_statement(world.attacked).payload_sha256


def of_another_use_case(world: World) -> None:
    world.write(world.sign(world.attacked, name="fraud"))


def expired(world: World) -> None:
    world.write(world.sign(world.attacked, expires=world.clock.now()))


def not_yet_valid(world: World) -> None:
    world.write(world.sign(world.attacked, created=world.clock.now() + DAY))


def wrong_role(world: World) -> None:
    world.write(world.sign(world.attacked, signer_for(world.settings, "contract:sign:risk")))


def unknown_key(world: World) -> None:
    world.write(world.sign(world.attacked, world.key("outsider")))


def wrong_key(world: World) -> None:
    """An outsider's signature under the name of the key that is trusted."""
    forged = world.sign(world.attacked, world.key("outsider"))
    world.write(
        msgspec.structs.replace(
            forged, signatures=(Signature(keyid=world.signer.key_id, sig=forged.signatures[0].sig),)
        )
    )


def revoked_key(world: World) -> None:
    path = world.settings.home / "trust.json"
    keys = dict(TrustRoot.load(path).keys)
    mine = keys[world.signer.key_id]
    keys[world.signer.key_id] = TrustedKey(public=mine.public, roles=mine.roles, revoked=True)
    path.write_bytes(TrustRoot(keys).to_json())


def forgotten_key(world: World) -> None:
    path = world.settings.home / "trust.json"
    keys = dict(TrustRoot.load(path).keys)
    del keys[world.signer.key_id]
    path.write_bytes(TrustRoot(keys).to_json())


def stripped(world: World) -> None:
    world.write(msgspec.structs.replace(read_statement(world.attacked), signatures=()))


def two_signatures(world: World) -> None:
    """Both hold, the second is an outsider's: a version is signed once."""
    good = read_statement(world.attacked)
    other = world.key("outsider").sign(PAYLOAD_TYPE, good.payload_bytes())
    world.write(msgspec.structs.replace(good, signatures=(*good.signatures, *other.signatures)))


def changed_claims(world: World) -> None:
    """Better metrics under the old signature."""
    good = read_statement(world.attacked)
    claims = json.loads(good.payload_bytes()) | {"metrics": {"roc_auc": {"value": 1.0}}}
    payload = base64.b64encode(json.dumps(claims).encode()).decode()
    world.write(msgspec.structs.replace(good, payload=payload))


def other_type(world: World) -> None:
    world.write(world.signer.sign("application/other", read_statement(world.attacked).payload_bytes()))


def files_outside(world: World) -> None:
    """A statement of the right key that lists a path above the folder."""
    claims = json.loads(read_statement(world.attacked).payload_bytes())
    claims["files"].append({"path": "../3/model.onnx", "size": 7, "sha256": sha256(b"model 3")})
    world.write(world.signer.sign(PAYLOAD_TYPE, json.dumps(claims).encode()))


def other_feature_code(world: World) -> None:
    world.write(world.sign(world.attacked, kernel_sha256=sha256(b"other")))


ATTACKS: dict[str, tuple[Callable[[World], None], type[EvidenceError], str]] = {
    "a flipped bit": (flipped, Tampered, "differs from what was signed"),
    "an appended byte": (put("model.onnx", b"model 4\n"), Tampered, "differs"),
    "an extra file": (put("extra.bin"), Tampered, "not signed: extra.bin"),
    "an extra file below": (put("tables/extra.bin"), Tampered, "not signed"),
    "a hidden file": (put(".hidden"), Tampered, "hidden"),
    "a git folder": (put(".git/config"), Tampered, "hidden"),
    "a link for a file": (linked, Tampered, "link"),
    "a dangling link": (lambda w: (w.attacked / "more").symlink_to("nowhere"), Tampered, "link"),
    "a link for the version": (linked_version, Tampered, "plain folder"),
    "a pipe": (lambda w: os.mkfifo(w.attacked / "pipe"), Tampered, "special file"),
    "an empty folder": (lambda w: (w.attacked / "empty").mkdir(), Tampered, "empty folder"),
    "a folder for a file": (folder_for_file, Tampered, "missing: model.onnx"),
    "a name in another case": (put("Model.onnx", b"model 4"), Tampered, "case"),
    "a file renamed to another case": (renamed_case, Tampered, "missing: model.onnx"),
    "a missing file": (lambda w: (w.attacked / "model.onnx").unlink(), Tampered, "missing"),
    "a missing version": (lambda w: shutil.rmtree(w.attacked), NotSigned, "no signed statement"),
    "an older version replayed": (replayed, Tampered, "not the statement that routing names"),
    "an older version replayed, routing too": (replayed_with_routing, Tampered, "signed as toy 3, not as toy 4"),
    "another version's file": (swapped_files, Tampered, "differs"),
    "another version's statement": (swapped_statement, Tampered, "routing"),
    "another version's statement, routing too": (swapped_statement_with_routing, Tampered, "not as toy 4"),
    "another use case's version": (of_another_use_case, Tampered, "signed as fraud"),
    "an expired statement": (expired, Tampered, "expired"),
    "a statement of tomorrow": (not_yet_valid, Tampered, "future"),
    "a key of another role": (wrong_role, NotSigned, "trusted for model:sign"),
    "an unknown key": (unknown_key, NotSigned, "trusted for model:sign"),
    "a forged signature": (wrong_key, Tampered, "does not hold"),
    "a revoked key": (revoked_key, NotSigned, "revoked"),
    "a key no longer trusted": (forgotten_key, NotSigned, "trusted for model:sign"),
    "no signature": (stripped, NotSigned, "trusted for model:sign"),
    "no statement": (lambda w: (w.attacked / STATEMENT).unlink(), NotSigned, "no signed statement"),
    "a statement of garbage": (put(STATEMENT, b"\xff\x00{"), Tampered, "cannot be parsed"),
    "a statement of deep nesting": (put(STATEMENT, b'{"a":' * 100_000), Tampered, "cannot be parsed"),
    "a huge statement": (put(STATEMENT, b" " * (MAX_ENVELOPE + 1)), Tampered, "larger than"),
    "two signatures": (two_signatures, Tampered, "2 signatures"),
    "changed claims": (changed_claims, Tampered, "does not hold"),
    "another payload type": (other_type, Tampered, "application/other"),
    "files outside the folder": (files_outside, Tampered, "missing"),
    "other feature code": (other_feature_code, Tampered, "feature code"),
}


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attacked_version_is_refused_unparsed_and_recorded_while_the_champion_serves(
    world: World, name: str
) -> None:
    attack, kind, why = ATTACKS[name]
    store = MemoryControlStore()
    promote(store, "toy", world.ref(world.serving), reason="test", by="test", now=1)
    host = ModelHost(
        "toy", store=store, load=world.load(), channel=MemoryCountsChannel(), replica="r", clock=world.clock
    )
    host.start()
    assert (world.parsed, host.state.champion) == (["3"], "3")
    attack(world)
    ref = world.ref(world.attacked)
    promote(store, "toy", ref, reason="attack", by="mallory", now=2)
    assert run(host.poll()) is False
    assert (host.state.champion, host.ready) == ("3", True)
    assert why in str(host.state.error)
    assert world.parsed == ["3"], "nothing of it was parsed"
    (loaded, refused) = world.audit.events
    assert (loaded.action, loaded.resource, loaded.outcome) == ("model.load", "model:toy/3", "ok")
    assert (refused.action, refused.resource, refused.outcome) == ("model.load", "model:toy/4", "refused")
    assert refused.refs == (ref.statement_sha256,)
    with pytest.raises(kind, match=why):
        world.load()(ref)


def test_what_was_not_attacked_loads(world: World) -> None:
    load = world.load()
    assert load(world.ref(world.attacked)).statement.version == "4"
    assert world.parsed == ["4"]


def test_a_key_revoked_while_the_replica_serves_signs_nothing_more(world: World) -> None:
    load = world.load()
    load(world.ref(world.serving))
    revoked_key(world)
    with pytest.raises(NotSigned, match="revoked"):
        load(world.ref(world.attacked))
    development_keys(world.settings.home, [])
    assert TrustRoot.load(world.settings.home / "trust.json").keys[world.signer.key_id].revoked, "up keeps it revoked"


def test_any_other_failure_is_recorded_once_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(folder: Path, statement: Any) -> Any:
        raise MemoryError("much")

    monkeypatch.setattr(loading, "load_artefact", out_of_memory)
    load = world.load()
    for _ in range(3):
        with pytest.raises(MemoryError):
            load(world.ref(world.attacked))
    assert [event.outcome for event in world.audit.events] == ["refused"]
