from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import CorruptState, EvidenceError, NotSigned, Tampered
from headway.governance.signing import (
    Envelope,
    Signature,
    Signer,
    TrustedKey,
    TrustRoot,
    generate_key,
    pre_authentication_encoding,
)

ROLE = "model:sign"
KIND = "application/x"


def trusting(signer: Signer, *roles: str) -> TrustRoot:
    key = TrustedKey(public=base64.b64encode(signer.public).decode(), roles=roles)
    return TrustRoot({signer.key_id: key})


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    key_id = generate_key(path)
    made = Signer(path)
    assert made.key_id == key_id
    assert len(key_id) == 32
    return made


def test_a_signed_payload_comes_back_byte_for_byte(signer: Signer) -> None:
    envelope = Envelope.from_json(signer.sign(KIND, b"\x00payload").to_json())
    assert trusting(signer, ROLE).verify(envelope, KIND, ROLE) == b"\x00payload"


def test_pre_authentication_encoding_is_dsse_v1() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == expected


@given(st.text(max_size=20), st.binary(max_size=20), st.text(max_size=20), st.binary(max_size=20))
def test_pre_authentication_encoding_is_injective(kind: str, payload: bytes, other: str, different: bytes) -> None:
    same = (kind, payload) == (other, different)
    assert (pre_authentication_encoding(kind, payload) == pre_authentication_encoding(other, different)) == same


def test_another_payload_type_is_refused(signer: Signer) -> None:
    envelope = signer.sign(KIND, b"x")
    with pytest.raises(Tampered, match="signed as"):
        trusting(signer, ROLE).verify(envelope, "application/y", ROLE)
    relabelled = msgspec.structs.replace(envelope, payloadType="application/y")
    with pytest.raises(Tampered, match="does not hold"):
        trusting(signer, ROLE).verify(relabelled, "application/y", ROLE)


def test_a_key_signs_only_for_its_roles(signer: Signer) -> None:
    with pytest.raises(NotSigned) as caught:
        trusting(signer, "contract:sign:risk").verify(signer.sign(KIND, b"x"), KIND, ROLE)
    assert caught.value.missing == (ROLE,)


def test_a_stranger_and_a_stripped_signature_are_no_signature(signer: Signer, tmp_path: Path) -> None:
    generate_key(tmp_path / "other.pem")
    envelope = Signer(tmp_path / "other.pem").sign(KIND, b"x")
    stripped = msgspec.structs.replace(envelope, signatures=())
    for bad in (envelope, stripped):
        with pytest.raises(NotSigned):
            trusting(signer, ROLE).verify(bad, KIND, ROLE)


def test_a_stranger_under_a_trusted_name_is_tampering(signer: Signer, tmp_path: Path) -> None:
    generate_key(tmp_path / "other.pem")
    envelope = Signer(tmp_path / "other.pem").sign(KIND, b"x")
    renamed = Signature(keyid=signer.key_id, sig=envelope.signatures[0].sig)
    with pytest.raises(Tampered):
        trusting(signer, ROLE).verify(msgspec.structs.replace(envelope, signatures=(renamed,)), KIND, ROLE)


@given(st.data())
def test_no_changed_byte_of_an_envelope_verifies_as_something_else(signer: Signer, data: st.DataObject) -> None:
    whole = signer.sign(KIND, b"payload").to_json()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = whole[:place] + bytes([byte]) + whole[place + 1 :]
    try:
        assert trusting(signer, ROLE).verify(Envelope.from_json(changed), KIND, ROLE) == b"payload"
    except EvidenceError:
        assert changed != whole


@given(st.binary(max_size=200))
def test_garbage_is_refused_as_tampering(data: bytes) -> None:
    with pytest.raises(Tampered):
        Envelope.from_json(data)


@pytest.mark.parametrize("signature", ["", "!!", "AAAA", base64.b64encode(b"\0" * 64).decode()])
def test_a_malformed_signature_is_tampering(signer: Signer, signature: str) -> None:
    envelope = signer.sign(KIND, b"x")
    bad = msgspec.structs.replace(envelope, signatures=(Signature(keyid=signer.key_id, sig=signature),))
    with pytest.raises(Tampered):
        trusting(signer, ROLE).verify(bad, KIND, ROLE)


def test_keys_are_private_whole_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    generate_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        generate_key(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["key.pem"]
    path.chmod(0o640)
    with pytest.raises(CorruptState, match="others can read"):
        Signer(path)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_broken_key_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CorruptState, match=r"key\.pem"):
        Signer(path)
    with pytest.raises(CorruptState, match="no private key"):
        Signer(tmp_path / "absent.pem")


def test_a_trust_root_must_be_well_formed_and_unwritable_by_others(signer: Signer, tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    with pytest.raises(CorruptState, match="no trust root"):
        TrustRoot.load(path)
    path.write_bytes(trusting(signer, ROLE).to_json())
    assert TrustRoot.load(path).keys[signer.key_id].roles == (ROLE,)
    path.chmod(0o666)
    with pytest.raises(CorruptState, match="others can write"):
        TrustRoot.load(path)
    path.chmod(0o644)
    public = base64.b64encode(signer.public).decode()
    wrong = [
        {"keys": {"0" * 32: {"public": public, "roles": [ROLE]}}},
        {"keys": {signer.key_id: {"public": "AAAA", "roles": [ROLE]}}},
        {"keys": {signer.key_id: {"public": public, "roles": [ROLE], "extra": 1}}},
        [],
    ]
    for value in wrong:
        path.write_text(json.dumps(value))
        with pytest.raises(CorruptState):
            TrustRoot.load(path)


def test_only_the_owner_enters_the_key_folder(home: Path) -> None:
    assert (home / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (home / "keys").iterdir()} == {0o600}
