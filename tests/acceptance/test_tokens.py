"""Who is let in: no decision without a good token, the right scope and a purpose of the contract."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.acceptance.platform import BODY, Platform, until

DECISIONS = "/v1/decisions"


def ask(http: httpx.Client, token: str | None, body: object = BODY, path: str = DECISIONS) -> httpx.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return http.post(path, json=body, headers=headers)


def test_a_token_of_the_command_line_decides(platform: Platform, http: httpx.Client) -> None:
    arguments = ("--client", "app", "--scope", "decide:churn", "--purpose", "customer_retention")
    bare = platform.headway("token", *arguments).stdout
    assert bare.count("\n") == 1
    answer = ask(http, bare.strip())
    assert answer.status_code == 200
    (decision,) = answer.json()["decisions"]
    assert decision["arm"] == "champion"
    assert decision["label"] == ("returns" if decision["score"] >= 0.5 else "leaves")


def test_the_forger_of_these_tests_makes_good_tokens_too(platform: Platform, http: httpx.Client) -> None:
    assert ask(http, platform.forged()).status_code == 200


@pytest.mark.parametrize("path", [DECISIONS, "/v1/outcomes", "/v2/models/churn/infer"])
def test_without_a_token(http: httpx.Client, path: str) -> None:
    answer = ask(http, None, path=path)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer"


def refused(http: httpx.Client, token: str) -> None:
    answer = ask(http, token)
    assert answer.status_code == 401, answer.text
    assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize("header", ["Bearer", "Bearer garbage", "Bearer a.b.c", "Basic YTpi", f"Bearer {'é' * 9}"])
def test_garbage(http: httpx.Client, header: str) -> None:
    answer = http.post(DECISIONS, json=BODY, headers=[(b"authorization", header.encode("latin-1"))])
    assert answer.status_code == 401, answer.text


def test_unsigned_wrong_audience_long_lived_early_or_of_another_issuer(platform: Platform, http: httpx.Client) -> None:
    now = int(time.time())
    refused(http, platform.forged(algorithm="none"))
    refused(http, platform.forged(aud="another-service"))
    refused(http, platform.forged(exp=now + 86_400))
    refused(http, platform.forged(iat=now + 600, exp=now + 700))
    refused(http, platform.forged(exp=now - 1, iat=now - 300))
    refused(http, platform.forged(iss="http://elsewhere.example"))
    refused(http, platform.forged(kind="root"))


def test_a_changed_signature(platform: Platform, http: httpx.Client) -> None:
    head, claims, signature = platform.token("decide:churn").split(".")
    middle = len(signature) // 2
    other = "A" if signature[middle] != "A" else "B"
    refused(http, ".".join((head, claims, signature[:middle] + other + signature[middle + 1 :])))


def test_a_token_that_was_good_expires(platform: Platform, http: httpx.Client) -> None:
    token = platform.token("decide:churn", lifetime_s=1)
    until(lambda: ask(http, token).status_code == 401, within_s=15, message="a token of one second is still accepted")
    assert "expired" in ask(http, token).json()["error"]


def test_a_missing_scope(platform: Platform, http: httpx.Client) -> None:
    for scopes in [("decide:fraud",), ("outcomes:churn",)]:
        answer = ask(http, platform.token(*scopes))
        assert answer.status_code == 403
        assert "decide:churn" in answer.json()["error"]
    assert ask(http, platform.token("decide:churn"), {"outcomes": []}, "/v1/outcomes").status_code == 403


def test_a_purpose_the_contract_does_not_name(platform: Platform, http: httpx.Client) -> None:
    answer = ask(http, platform.token("decide:churn", purpose="retention_marketing"))
    assert answer.status_code == 403
    assert "customer_retention" in answer.json()["error"]


def test_choosing_the_time_needs_the_replay_scope(platform: Platform, http: httpx.Client) -> None:
    bodies = [
        {**BODY, "as_of": "1998-02-01T00:00:00Z"},
        {"rows": [{**BODY["rows"][0], "event_time": "1998-02-01T00:00:00Z"}]},
    ]
    for body in bodies:
        answer = ask(http, platform.token("decide:churn"), body)
        assert answer.status_code == 403
        assert "replay:churn" in answer.json()["error"]
        assert ask(http, platform.token("decide:churn", "replay:churn"), body).status_code == 200


def test_the_issuer_mints_no_long_lived_token(platform: Platform) -> None:
    arguments = ("--client", "app", "--scope", "decide:churn", "--purpose", "customer_retention", "--lifetime", "901")
    said = platform.headway("token", *arguments, code=2).stderr
    assert "900" in said
