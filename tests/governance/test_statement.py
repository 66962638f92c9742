from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.errors import EvidenceError, InvalidValue, NotSigned, Tampered
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.governance.keys import MODEL_SIGN, signer_for
from headway.governance.signing import Envelope, TrustRoot
from headway.governance.statement import (
    PAYLOAD_TYPE,
    STATEMENT,
    ModelStatement,
    read_file,
    read_statement,
    sign_version,
    verify_version,
)
from tests.governance.conftest import NOW


@pytest.fixture
def signed(version: Path, fields: dict[str, Any], settings: Settings) -> Envelope:
    return sign_version(version, fields, signer_for(settings, MODEL_SIGN))


@pytest.fixture
def verify(version: Path, signed: Envelope, trust: TrustRoot, clock: ManualClock) -> Callable[..., ModelStatement]:
    def make(**changes: Any) -> ModelStatement:
        return verify_version(version, trust, **{"name": "fraud", "version": "3", "clock": clock, **changes})

    return make


def test_a_signed_version_verifies(verify: Callable[..., ModelStatement], signed: Envelope) -> None:
    statement = verify(statement_sha256=signed.payload_sha256)
    assert [(entry.path, entry.size) for entry in statement.files] == [("model.json", 13), ("tables/profile.json", 2)]
    assert statement.metrics["roc_auc"].value == 0.9
    assert statement.metrics["average_precision"].low == 0.57
    assert statement.snapshots == {"events.transactions": 8_723_645_982_734}
    assert verify(version=None) == statement


def test_signing_twice_replaces_the_statement(
    version: Path, fields: dict[str, Any], settings: Settings, verify: Callable[..., ModelStatement]
) -> None:
    sign_version(version, {**fields, "version": "4"}, signer_for(settings, MODEL_SIGN))
    assert verify(version="4").files == verify(version=None).files


def add(path: str, content: bytes = b"x") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    return change


def same_size(folder: Path) -> None:
    (folder / "model.json").write_bytes((folder / "model.json").read_bytes().replace(b"trees", b"treeS"))


def linked(folder: Path) -> None:
    target = folder.with_name("model-elsewhere.json")
    (folder / "model.json").rename(target)
    (folder / "model.json").symlink_to(target)


def linked_folder(folder: Path) -> None:
    (folder / "tables").rename(folder.with_name("tables-elsewhere"))
    (folder / "tables").symlink_to(folder.with_name("tables-elsewhere"))


def piped(folder: Path) -> None:
    (folder / "model.json").unlink()
    os.mkfifo(folder / "model.json")


def folder_for_file(folder: Path) -> None:
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()
    (folder / "model.json" / "x").write_bytes(b"x")


def swapped(folder: Path) -> None:
    (folder / "model.json").rename(folder / "t")
    (folder / "tables" / "profile.json").rename(folder / "model.json")
    (folder / "t").rename(folder / "tables" / "profile.json")


def crowd(folder: Path) -> None:
    for number in range(1_001):
        (folder / f"f{number}").touch()


CHANGES: dict[str, Callable[[Path], None]] = {
    "a changed file": add("model.json", b"{}"),
    "a changed byte": same_size,
    "an appended byte": lambda folder: add("model.json", (folder / "model.json").read_bytes() + b"\n")(folder),
    "a missing file": lambda folder: (folder / "model.json").unlink(),
    "an extra file": add("extra.json"),
    "an extra file below": add("tables/extra.json"),
    "a hidden file": add(".hidden"),
    "a git folder": add(".git/config"),
    "a python file": add("__init__.py"),
    "an empty folder": lambda folder: (folder / "empty").mkdir(),
    "a second statement": add("tables/statement.dsse.json"),
    "an odd name": add("a b"),
    "a newline in a name": add("a\nb"),
    "a link": linked,
    "a linked folder": linked_folder,
    "a dangling link": lambda folder: (folder / "dangling").symlink_to("nowhere"),
    "a pipe": piped,
    "a folder for a file": folder_for_file,
    "a statement of garbage": add(STATEMENT, b"\xff\x00"),
    "an empty statement": add(STATEMENT, b""),
    "an empty object": add(STATEMENT, b"{}"),
    "a swapped pair": swapped,
    "a deep tree": add("/".join("d" * 400) + "/x"),
    "a crowd": crowd,
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_any_change_of_the_folder_is_refused(version: Path, verify: Callable[..., ModelStatement], name: str) -> None:
    verify()
    CHANGES[name](version)
    with pytest.raises(Tampered):
        verify()


def test_a_linked_version_folder_and_a_linked_statement_are_refused(
    version: Path, verify: Callable[..., ModelStatement], trust: TrustRoot, clock: ManualClock
) -> None:
    alias = version.with_name("alias")
    alias.symlink_to(version)
    with pytest.raises(Tampered):
        verify_version(alias, trust, name="fraud", clock=clock)
    (version / STATEMENT).rename(version.with_name("statement.json"))
    (version / STATEMENT).symlink_to(version.with_name("statement.json"))
    with pytest.raises(Tampered):
        verify()


def test_a_missing_statement_is_not_signed(version: Path, verify: Callable[..., ModelStatement]) -> None:
    (version / STATEMENT).unlink()
    with pytest.raises(NotSigned):
        verify()
    shutil.rmtree(version)
    with pytest.raises(NotSigned):
        verify()


def test_name_version_and_statement_are_bound(
    version: Path,
    verify: Callable[..., ModelStatement],
    signed: Envelope,
    fields: dict[str, Any],
    settings: Settings,
) -> None:
    with pytest.raises(Tampered, match="signed as fraud 3, not as churn"):
        verify(name="churn")
    with pytest.raises(Tampered, match="not as fraud 4"):
        verify(version="4")
    other = sign_version(version, {**fields, "run_id": "r2"}, signer_for(settings, MODEL_SIGN))
    assert other.payload_sha256 != signed.payload_sha256
    with pytest.raises(Tampered, match="routing"):
        verify(statement_sha256=signed.payload_sha256)
    verify(statement_sha256=other.payload_sha256)


def test_expiry_and_the_future_are_refused(verify: Callable[..., ModelStatement]) -> None:
    verify(clock=ManualClock(NOW + 90 * DAY - 1))
    with pytest.raises(Tampered, match="expired"):
        verify(clock=ManualClock(NOW + 90 * DAY))
    with pytest.raises(Tampered, match="future"):
        verify(clock=ManualClock(NOW - DAY))


def test_only_a_model_key_counts(
    version: Path, fields: dict[str, Any], settings: Settings, trust: TrustRoot, clock: ManualClock
) -> None:
    sign_version(version, fields, signer_for(settings, "contract:sign:risk"))
    with pytest.raises(NotSigned):
        verify_version(version, trust, name="fraud", clock=clock)


def test_a_contract_signature_is_no_statement(
    version: Path, signed: Envelope, settings: Settings, verify: Callable[..., ModelStatement]
) -> None:
    signer = signer_for(settings, MODEL_SIGN)
    (version / STATEMENT).write_bytes(signer.sign("application/other", signed.payload_bytes()).to_json())
    with pytest.raises(Tampered, match=PAYLOAD_TYPE.replace(".", r"\.").replace("+", r"\+")):
        verify()
    (version / STATEMENT).write_bytes(signer.sign(PAYLOAD_TYPE, b'{"name": "fraud"}').to_json())
    with pytest.raises(Tampered, match="cannot be parsed"):
        verify()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": ...}, "name"),
        ({"version": 3}, "version"),
        ({"contract_sha256": "short"}, "contract_sha256"),
        ({"extra": 1}, "extra"),
        ({"expires": NOW}, "after created"),
        ({"files": []}, "leave it out"),
        ({"metrics": {"roc_auc": float("nan")}}, ""),
        ({"created": "today"}, "created"),
    ],
)
def test_a_statement_that_cannot_be_signed_is_named(
    version: Path, fields: dict[str, Any], settings: Settings, changes: dict[str, Any], why: str
) -> None:
    wrong = {name: value for name, value in {**fields, **changes}.items() if value is not ...}
    with pytest.raises(InvalidValue) as caught:
        sign_version(version, wrong, signer_for(settings, MODEL_SIGN))
    assert why in str(caught.value)
    assert not (version / STATEMENT).exists()


def test_nothing_is_signed_over_links_or_hidden_files(
    version: Path, fields: dict[str, Any], settings: Settings
) -> None:
    (version / ".cache").write_bytes(b"x")
    with pytest.raises(Tampered, match="hidden"):
        sign_version(version, fields, signer_for(settings, MODEL_SIGN))


def test_a_file_is_hashed_as_it_is_read(version: Path, verify: Callable[..., ModelStatement]) -> None:
    statement = verify()
    assert read_file(version, statement, "model.json") == b'{"trees": []}'
    same_size(version)
    with pytest.raises(Tampered):
        read_file(version, statement, "model.json")
    (version / "model.json").unlink()
    for path in ("model.json", "../fraud-3/tables/profile.json", STATEMENT, "/etc/hostname"):
        with pytest.raises(Tampered):
            read_file(version, statement, path)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(data=st.data())
def test_no_changed_byte_of_the_statement_changes_what_it_says(
    version: Path,
    signed: Envelope,
    trust: TrustRoot,
    data: st.DataObject,
) -> None:
    whole = signed.to_json()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    (version / STATEMENT).write_bytes(changed)
    try:
        verify_version(version, trust, name="fraud", version="3", clock=ManualClock(NOW))
        assert read_statement(version).payload_bytes() == signed.payload_bytes()
    except EvidenceError:
        assert changed != whole
