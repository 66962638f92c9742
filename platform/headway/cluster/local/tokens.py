"""Asks the development identity provider for tokens, as any client would: over HTTP, with the home's secret."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence

from headway.cluster.local.service import LOOPBACK
from headway.cluster.local.services.issuer import SECRET_FILE
from headway.core.errors import InvalidValue, ServiceFailed, Unauthenticated
from headway.core.platform_state import read_state
from headway.core.project import Project
from headway.core.settings import Settings

_VERBS = ("decide", "outcomes", "score", "replay", "rollout", "train", "deploy", "monitor")
_FEATURES = ("features:write", "data:read", "lake:write", "quality:write")
_REGISTRY = ("registry:read", "registry:review", "registry:approve")
"""People read, refuse and approve; programs write (`governance.roles`)."""
_GENERAL = (*_FEATURES, *_REGISTRY, "audit:read")
_TIMEOUT_S = 10.0


def request_token(
    settings: Settings, *, sub: str, kind: str, scopes: Sequence[str], purpose: str, lifetime_s: int = 900
) -> str:
    """Return a token; ServiceFailed when the provider is not up, InvalidValue when it refuses a claim."""
    state = read_state(settings.home)
    if state is None:
        raise ServiceFailed(f"the identity provider of {settings.home} is not up", hint="headway up")
    try:
        secret = (settings.home / "issuer" / SECRET_FILE).read_text().strip()
    except (FileNotFoundError, PermissionError) as error:
        raise Unauthenticated(
            f"the provider's secret cannot be read: {error}", hint="use the account of the home"
        ) from None
    claims = {"sub": sub, "kind": kind, "scopes": list(scopes), "purpose": purpose, "lifetime_s": lifetime_s}
    connection = http.client.HTTPConnection(LOOPBACK, state.ports["issuer"], timeout=_TIMEOUT_S)
    try:
        connection.request("POST", "/token", body=json.dumps(claims), headers={"authorization": f"Bearer {secret}"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServiceFailed(f"the identity provider does not answer: {error}", hint="headway up repairs it") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise InvalidValue("token", str(body.get("error", "refused")))
    return str(body["access_token"])


def person_scopes(settings: Settings) -> list[str]:
    """Return what the owner of a development platform may do: all of every use case and source, and every sign-off."""
    from headway.features.definitions import EventSource
    from headway.governance.contract import load_contract

    project = Project(settings.project)
    scopes = set(_GENERAL)
    for use_case in project.use_cases():
        scopes |= {f"{verb}:{use_case}" for verb in _VERBS}
        contract = load_contract(project.app_folder(use_case) / "contract.yaml").contract
        scopes |= {f"contract:sign:{role}" for role in contract.signoff}
    scopes |= {f"ingest:{source.name}" for source in project.collect("features", EventSource)}
    return sorted(scopes)
