from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway.cluster.local.servers.issuer import MAX_BODY, create_app, main
from headway.cluster.local.services.issuer import SECRET_FILE
from headway.core.clock import SystemClock
from headway.core.errors import CorruptState, InvalidValue
from headway.core.settings import load_settings
from headway.governance.identity import verifier_from
from headway.governance.issuing import development_issuer

CLAIMS = {"sub": "till", "kind": "workload", "scopes": ["decide:fraud"], "purpose": "fraud_prevention"}
SECRET = "5e" * 32
BEARER = {"authorization": f"Bearer {SECRET}"}


class Client:
    """Calls the application without a socket."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app=app)

    def get(self, path: str) -> httpx.Response:
        return self._call("GET", path)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._call("POST", path, **options)

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://issuer") as client:
                return await client.request(method, path, **options)

        return asyncio.run(call())


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(create_app(development_issuer(tmp_path, SystemClock()), "http://127.0.0.1:1", SECRET))


def test_a_token_verifies_with_the_published_keys(client: Client, tmp_path: Path) -> None:
    answer = client.post("/token", json=CLAIMS, headers=BEARER)
    assert answer.status_code == 200
    settings = load_settings(home=tmp_path)
    principal = verifier_from(settings, SystemClock()).verify(answer.json()["access_token"])
    assert (principal.sub, principal.kind, principal.purpose) == ("till", "workload", "fraud_prevention")
    assert principal.scopes == {"decide:fraud"}


def test_discovery_points_to_keys_and_tokens(client: Client) -> None:
    found = client.get("/.well-known/openid-configuration").json()
    assert found["jwks_uri"] == "http://127.0.0.1:1/jwks.json"
    assert found["token_endpoint"] == "http://127.0.0.1:1/token"
    (key,) = client.get("/jwks.json").json()["keys"]
    assert key["alg"] == "ES256"
    assert "d" not in key


@pytest.mark.parametrize(
    "header", [{}, *({"authorization": value} for value in ("", "Bearer ", "Bearer wrong", f"Basic {SECRET}", SECRET))]
)
def test_without_the_secret_there_is_no_token(client: Client, header: dict[str, str]) -> None:
    answer = client.post("/token", json=CLAIMS, headers=header)
    assert answer.status_code == 401
    assert "access_token" not in answer.json()


@pytest.mark.parametrize("secret", ["", "s3cret", "5e" * 33])
def test_without_a_proper_secret_it_does_not_start(tmp_path: Path, secret: str) -> None:
    with pytest.raises(InvalidValue, match="secret"):
        create_app(development_issuer(tmp_path, SystemClock()), "http://127.0.0.1:1", secret)


def test_an_emptied_secret_keeps_the_server_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: None)
    (tmp_path / "issuer").mkdir()
    (tmp_path / "issuer" / SECRET_FILE).touch()
    with pytest.raises(CorruptState, match=SECRET_FILE):
        main(str(tmp_path), 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"kind": "robot"}, "kind"),
        ({"scopes": "decide:fraud"}, "scopes"),
        ({"scopes": ["no scope"]}, "scope"),
        ({"purpose": ""}, "purpose"),
        ({"lifetime_s": 901}, "lifetime_s"),
        ({"lifetime_s": 0}, "lifetime_s"),
        ({"lifetime_s": True}, "lifetime_s"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_claim_is_refused_by_name(client: Client, change: dict[str, Any], field: str) -> None:
    answer = client.post("/token", json={**CLAIMS, **change}, headers=BEARER)
    assert answer.status_code == 400
    assert field in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"' + b"x" * MAX_BODY + b'"'])
def test_what_is_not_an_object_is_refused(client: Client, body: bytes) -> None:
    assert client.post("/token", content=body, headers=BEARER).status_code == 400
