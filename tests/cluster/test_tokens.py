from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headway.cluster import tokens
from headway.cluster.tokens import RegistryTokens, TokenSource
from headway.core.clock import ManualClock
from headway.core.errors import ServiceFailed
from headway.core.settings import Settings
from headway.core.times import SECOND
from headway.core.types import Principal
from headway.governance.claims import MAX_LIFETIME_S


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the issuer was asked for; its tokens are numbered."""
    found: list[dict[str, Any]] = []

    def request_token(settings: Settings, **claims: Any) -> str:
        found.append(claims)
        return f"token-{len(found)}"

    monkeypatch.setattr(tokens, "request_token", request_token)
    return found


def source(settings: Settings, clock: ManualClock) -> TokenSource:
    return TokenSource(settings, sub="demo", scopes=["decide:churn"], purpose="retention", clock=clock)


def test_nothing_is_asked_before_a_token_is_wanted(settings: Settings, clock: ManualClock, asked: list[Any]) -> None:
    token = source(settings, clock)
    assert asked == []
    assert token() == "token-1"
    assert asked == [{"sub": "demo", "kind": "workload", "scopes": ("decide:churn",), "purpose": "retention"}]


def test_a_token_is_kept_until_a_minute_before_it_expires(
    settings: Settings, clock: ManualClock, asked: list[Any]
) -> None:
    token = source(settings, clock)
    token()
    clock.advance((MAX_LIFETIME_S - 61) * SECOND)
    assert token() == "token-1"
    clock.advance(SECOND)
    assert token() == token() == "token-2"
    clock.advance((MAX_LIFETIME_S - 60) * SECOND)
    assert token() == "token-3"


def test_a_failed_renewal_is_tried_again(
    settings: Settings, clock: ManualClock, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = source(settings, clock)
    token()
    clock.advance(MAX_LIFETIME_S * SECOND)

    def away(settings: Settings, **claims: Any) -> str:
        raise ServiceFailed("the identity provider does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "request_token", away)
        with pytest.raises(ServiceFailed):
            token()
    assert token() == "token-2"


def test_the_registry_is_called_under_the_name_of_who_acts_with_its_rights_only(
    settings: Settings, clock: ManualClock, asked: list[dict[str, Any]]
) -> None:
    ann = Principal(
        sub="ann",
        kind="human",
        scopes=frozenset({"registry:read", "rollout:fraud"}),
        purpose="review",
        expires=clock.now() + SECOND,
    )
    robot = replace(ann, sub="robot", kind="workload")
    tokens_of = RegistryTokens(settings, clock)
    assert [tokens_of(ann, "read"), tokens_of(robot, "write"), tokens_of(ann, "read")] == [
        "token-1",
        "token-2",
        "token-1",
    ]
    assert [(claims["sub"], claims["kind"], claims["scopes"]) for claims in asked] == [
        ("ann", "human", ["registry:read"]),
        ("robot", "workload", ["registry:read", "registry:write"]),
    ]
    clock.advance((MAX_LIFETIME_S - 60) * SECOND)
    assert tokens_of(ann, "read") == "token-3"
