from __future__ import annotations

from typing import Any

import pytest

from headway.cluster import tokens
from headway.cluster.tokens import TokenSource
from headway.core.clock import ManualClock
from headway.core.errors import ServiceFailed
from headway.core.settings import Settings
from headway.core.times import SECOND
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
