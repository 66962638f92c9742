from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.errors import CorruptState, InvalidValue, Unauthenticated, Unavailable
from headway.core.settings import load_settings
from headway.core.times import SECOND
from headway.governance import identity
from headway.governance.identity import TokenVerifier, verifier_from
from headway.governance.issuing import IssuerKey, TokenIssuer, development_issuer
from headway.governance.jwks import RemoteJwks, parse_jwks
from headway.governance.login import current_principal, store_token
from tests.governance.conftest import NOW

ISSUER = "https://id.example.com"
NOW_S = NOW // SECOND


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> IssuerKey:
    return IssuerKey.generate(tmp_path_factory.mktemp("issuer") / "key.pem")


@pytest.fixture
def verifier(key: IssuerKey, clock: ManualClock) -> TokenVerifier:
    return TokenVerifier({ISSUER: {"keys": [key.jwk]}}, clock)


def claims(**changes: Any) -> dict[str, Any]:
    good = {
        "iss": ISSUER, "sub": "ann", "aud": "headway", "iat": NOW_S, "exp": NOW_S + 900, "jti": "j1",
        "kind": "human", "scope": "decide:fraud contract:sign:risk", "purpose": "fraud_prevention",
    }  # fmt: skip
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(key: IssuerKey, header: dict[str, Any] | None = None, **changes: Any) -> str:
    headers = {"kid": key.kid, **(header or {})}
    return jwt.encode(claims(**changes), key.private, algorithm="ES256", headers=headers)


def test_a_good_token_is_a_principal(verifier: TokenVerifier, key: IssuerKey) -> None:
    principal = verifier.verify(signed(key))
    assert (principal.sub, principal.kind, principal.purpose) == ("ann", "human", "fraud_prevention")
    assert principal.scopes == {"decide:fraud", "contract:sign:risk"}
    assert principal.expires == (NOW_S + 900) * SECOND
    assert verifier.verify(signed(key, aud=["other", "headway"])).sub == "ann"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "other"}, "not issued for"),
        ({"aud": None}, "aud"),
        ({"aud": []}, "not issued for"),
        ({"iss": "https://evil.example.com"}, "issuer is not trusted"),
        ({"iss": None}, "not a token"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"jti": None}, "jti"),
        ({"kind": None}, "kind"),
        ({"scope": None}, "scope"),
        ({"purpose": None}, "purpose"),
        ({"sub": ""}, "sub"),
        ({"sub": "ann\nroot"}, "control"),
        ({"kind": "root"}, "kind"),
        ({"exp": NOW_S + 901}, "lifetime"),
        ({"exp": NOW_S + 10**8}, "lifetime"),
        ({"iat": NOW_S - 10**6, "exp": NOW_S + 100}, "lifetime"),
        ({"exp": NOW_S}, "lifetime"),
        ({"iat": NOW_S - 900, "exp": NOW_S}, "expired"),
        ({"iat": NOW_S + 60, "exp": NOW_S + 120}, "future"),
        ({"nbf": NOW_S + 60}, "future"),
        ({"exp": float(NOW_S + 800) + 0.5}, "exp"),
        ({"exp": str(NOW_S + 800)}, "exp"),
        ({"iat": True}, "iat"),
        ({"scope": ["decide:fraud"]}, "scope"),
        ({"scope": "decide"}, "scope"),
        ({"scope": "decide:*"}, "scope"),
    ],
)
def test_a_wrong_claim_is_refused(verifier: TokenVerifier, key: IssuerKey, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Unauthenticated, match=why):
        verifier.verify(signed(key, **changes))


def encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_no_algorithm_but_the_issuers_own(verifier: TokenVerifier, key: IssuerKey) -> None:
    body = encode(claims())
    for alg in ("none", "None", "NONE", ""):
        with pytest.raises(Unauthenticated):
            verifier.verify(f"{encode({'alg': alg, 'kid': key.kid})}.{body}.")
    public = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = [public, json.dumps(key.jwk).encode(), key.jwk["x"].encode()]
    for secret in secrets:
        start = f"{encode({'alg': 'HS256', 'kid': key.kid})}.{body}"
        mac = base64.urlsafe_b64encode(hmac.digest(secret, start.encode(), hashlib.sha256)).rstrip(b"=").decode()
        with pytest.raises(Unauthenticated, match="signs with ES256"):
            verifier.verify(f"{start}.{mac}")


def test_a_token_cannot_bring_its_own_key(verifier: TokenVerifier, key: IssuerKey, tmp_path: Path) -> None:
    evil = IssuerKey.generate(tmp_path / "evil.pem")
    for header in (
        {"jwk": evil.jwk, "kid": key.kid},
        {"jku": "https://evil.example.com/jwks.json", "kid": key.kid},
        {"x5u": "https://evil.example.com/cert", "kid": key.kid},
    ):
        token = jwt.encode(claims(), evil.private, algorithm="ES256", headers=header)
        with pytest.raises(Unauthenticated, match="signature does not hold"):
            verifier.verify(token)
    with pytest.raises(Unauthenticated, match="unknown key"):
        verifier.verify(jwt.encode(claims(), evil.private, algorithm="ES256", headers={"jwk": evil.jwk}))


def test_header_extensions_are_refused(verifier: TokenVerifier, key: IssuerKey) -> None:
    for header in ({"crit": ["exp"]}, {"typ": "logout+jwt"}, {"typ": 7}):
        with pytest.raises(Unauthenticated):
            verifier.verify(signed(key, header))


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "....", "é.é.é", "x" * 9_000, "e30.e30.e30", "\x00"])
def test_garbage_is_refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


@given(st.data())
def test_no_changed_character_verifies_as_somebody_else(key: IssuerKey, data: st.DataObject) -> None:
    verifier = TokenVerifier({ISSUER: {"keys": [key.jwk]}}, ManualClock(NOW))
    token = signed(key)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABab01-_.=+/ {"))
    changed = token[:place] + letter + token[place + 1 :]
    try:
        assert verifier.verify(changed) == verifier.verify(token)
    except Unauthenticated:
        assert changed != token


def test_a_remembered_token_still_expires(verifier: TokenVerifier, key: IssuerKey, clock: ManualClock) -> None:
    token = signed(key)
    first = verifier.verify(token)
    assert verifier.verify(token) is first
    clock.advance(900 * SECOND - 1)
    assert verifier.verify(token) is first
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="expired"):
        verifier.verify(token)


def test_the_memory_is_bounded(verifier: TokenVerifier, key: IssuerKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_CACHE", 3)
    tokens = [signed(key, jti=str(number)) for number in range(6)]
    first = verifier.verify(tokens[0])
    for token in tokens[1:]:
        verifier.verify(token)
    assert len(verifier._cache) == 3
    assert verifier.verify(tokens[0]) is not first


def test_rsa_and_eddsa_issuers_are_pinned_too(clock: ManualClock) -> None:
    private = rsa.generate_private_key(65537, 2048)
    eddsa = ed25519.Ed25519PrivateKey.generate()
    jwks = {
        "https://rsa": {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())), "kid": "r"},
        "https://ed": {**json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(eddsa.public_key())), "kid": "e"},
    }
    for entry in jwks.values():
        entry.pop("key_ops", None)
    verifier = TokenVerifier({issuer: {"keys": [entry]} for issuer, entry in jwks.items()}, clock)
    good = jwt.encode(claims(iss="https://rsa"), private, algorithm="RS256", headers={"kid": "r"})
    assert verifier.verify(good).sub == "https://rsa#ann"  # a subject is unique per issuer only
    good = jwt.encode(claims(iss="https://ed"), eddsa, algorithm="EdDSA", headers={"kid": "e"})
    assert verifier.verify(good).sub == "https://ed#ann"
    for algorithm in ("PS256", "RS512"):
        other = jwt.encode(claims(iss="https://rsa"), private, algorithm=algorithm, headers={"kid": "r"})
        with pytest.raises(Unauthenticated, match="signs with RS256"):
            verifier.verify(other)
    crossed = jwt.encode(claims(iss="https://rsa"), eddsa, algorithm="EdDSA", headers={"kid": "e"})
    with pytest.raises(Unauthenticated):
        verifier.verify(crossed)


def test_a_token_ends_with_its_key(key: IssuerKey, clock: ManualClock) -> None:
    kept = [{"keys": [key.jwk]}]
    verifier = TokenVerifier({ISSUER: lambda: kept[-1]}, clock)
    token = jwt.encode(claims(), key.private, algorithm="ES256", headers={"kid": key.jwk["kid"]})
    assert verifier.verify(token).sub == "ann"
    other = {**key.jwk, "kid": "next"}
    kept.append({"keys": [other]})
    clock.advance(2_000_000)
    with pytest.raises(Unauthenticated, match="withdrawn"):
        verifier.verify(token)


def test_unsafe_key_sets_are_refused(key: IssuerKey) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    entry = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(weak.public_key())), "kid": "w"}
    entry.pop("key_ops", None)
    p384 = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key()))
    bad: list[list[Any]] = [
        [],
        [{"kty": "oct", "k": "AAAA", "kid": "s"}],
        [{**key.jwk, "d": "AAAA"}],
        [{**key.jwk, "alg": "HS256"}],
        [{**key.jwk, "use": "enc"}],
        [{**key.jwk, "x": key.jwk["y"]}],
        [{name: value for name, value in key.jwk.items() if name != "kid"}],
        [key.jwk, key.jwk],
        [entry],
        [{**p384, "kid": "p"}],
        ["text"],
    ]
    for keys in bad:
        with pytest.raises(CorruptState):
            parse_jwks({"keys": keys})
    with pytest.raises(CorruptState):
        parse_jwks({})


def test_a_pin_leaves_other_keys_of_a_provider_out(key: IssuerKey) -> None:
    other = rsa.generate_private_key(65537, 2048).public_key()
    entry = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(other)), "kid": "r"}
    keys = {"keys": [{**entry, "use": "enc", "alg": "RSA-OAEP", "kid": "e"}, entry, key.jwk]}
    with pytest.raises(CorruptState):
        parse_jwks(keys)
    for algorithm, kids in (("RS256", {"r"}), ("ES256", {key.kid})):
        assert parse_jwks(keys, algorithm=algorithm).keys.keys() == kids
    with pytest.raises(CorruptState):
        parse_jwks(keys, algorithm="EdDSA")


def test_an_issuer_cannot_change_its_algorithm(key: IssuerKey, clock: ManualClock) -> None:
    eddsa = ed25519.Ed25519PrivateKey.generate()
    other = {**json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(eddsa.public_key())), "kid": "e"}
    other.pop("key_ops", None)
    current: dict[str, Any] = {"keys": [key.jwk]}
    verifier = TokenVerifier({ISSUER: lambda: current}, clock)
    verifier.verify(signed(key))
    current = {"keys": [other]}
    with pytest.raises(Unauthenticated, match="cannot be used"):
        verifier.verify(jwt.encode(claims(), eddsa, algorithm="EdDSA", headers={"kid": "e"}))


def test_the_development_issuer_and_verifier_meet(tmp_path: Path, clock: ManualClock) -> None:
    settings = load_settings(home=tmp_path)
    with pytest.raises(CorruptState, match="headway up"):
        verifier_from(settings, clock)
    issuer = development_issuer(tmp_path, clock)
    again = development_issuer(tmp_path, clock)
    assert issuer.jwks() == again.jwks()
    assert (tmp_path / "issuer" / "key.pem").stat().st_mode & 0o777 == 0o600
    verifier = verifier_from(settings, clock)
    token = issuer.issue("ci-7", "ci", ["train:fraud"], "release", lifetime_s=60)
    assert verifier.verify(token).expires == NOW // SECOND * SECOND + 60 * SECOND
    (tmp_path / "issuer" / "key.pem").unlink()
    rotated = development_issuer(tmp_path, clock)
    assert verifier.verify(rotated.issue("ci-8", "ci", [], "release")).sub == "ci-8"
    fresh = issuer.issue("ci-9", "ci", [], "release")
    with pytest.raises(Unauthenticated, match="unknown key"):
        verifier.verify(fresh)


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime_s": 901},
        {"lifetime_s": 0},
        {"kind": "root"},
        {"sub": ""},
        {"purpose": "a\nb"},
        {"scopes": ["decide"]},
        {"scopes": ["decide:fraud registry:write"]},
        {"scopes": "decide:fraud"},
    ],
)
def test_the_issuer_refuses_what_no_verifier_takes(tmp_path: Path, clock: ManualClock, changes: dict[str, Any]) -> None:
    issuer = development_issuer(tmp_path, clock)
    request: dict[str, Any] = {"sub": "a", "kind": "ci", "scopes": ["decide:fraud"], "purpose": "p", **changes}
    with pytest.raises(InvalidValue):
        issuer.issue(**request)


def test_login_keeps_a_token_privately_and_says_how_to_get_one(tmp_path: Path, clock: ManualClock) -> None:
    issuer: TokenIssuer = development_issuer(tmp_path, clock)
    verifier = verifier_from(load_settings(home=tmp_path), clock)
    with pytest.raises(Unauthenticated) as caught:
        current_principal(tmp_path, verifier)
    assert caught.value.hint == "headway login"
    path = store_token(tmp_path, issuer.issue("ann", "human", ["decide:fraud"], "work"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert current_principal(tmp_path, verifier).sub == "ann"
    clock.advance(901 * SECOND)
    with pytest.raises(Unauthenticated) as caught:
        current_principal(tmp_path, verifier)
    assert caught.value.hint == "headway login"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Unauthenticated):
        current_principal(tmp_path, verifier)


def test_a_remote_issuer_is_fetched_beside_the_requests(key: IssuerKey, clock: ManualClock) -> None:
    answers: dict[str, dict[str, Any]] = {
        f"{ISSUER}/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"},
        f"{ISSUER}/keys": {"keys": [key.jwk]},
    }
    fetched: list[str] = []

    def fetch(url: str) -> dict[str, Any]:
        fetched.append(url)
        return answers[url]

    source = RemoteJwks(ISSUER, clock, fetch=fetch)
    try:
        assert source.wait(5)
        verifier = TokenVerifier({ISSUER: source}, clock)
        assert verifier.verify(signed(key)).sub == "ann"
        for number in range(5):
            with pytest.raises(Unauthenticated, match="unknown key"):
                verifier.verify(signed(key, {"kid": "other"}, jti=str(number)))
        clock.advance(25 * 3600 * SECOND)
        with pytest.raises(Unavailable):
            source()
    finally:
        source.close()
    assert len(fetched) <= 4


def test_a_remote_issuer_under_another_name_is_not_believed(key: IssuerKey, clock: ManualClock) -> None:
    source = RemoteJwks(ISSUER, clock, fetch=lambda url: {"issuer": "https://evil", "jwks_uri": url})
    try:
        assert not source.wait(0.2)
        with pytest.raises(Unavailable, match="evil"):
            TokenVerifier({ISSUER: source}, clock).verify(signed(key))
    finally:
        source.close()
