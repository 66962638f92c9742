"""The development identity provider's ASGI application: discovery, keys, and tokens for the holder of the secret.

It is the only process that reads the issuer's private key; everybody else verifies with the published keys.
"""

from __future__ import annotations

import hmac
import json
import sys
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from headway.cluster.local.service import LOOPBACK, is_secret, private_secret
from headway.cluster.local.services.issuer import SECRET_FILE
from headway.core.clock import SystemClock
from headway.core.errors import HeadwayError, InvalidValue
from headway.core.settings import load_settings
from headway.governance.claims import MAX_LIFETIME_S
from headway.governance.issuing import TokenIssuer, development_issuer

MAX_BODY = 16_384
_FIELDS = {"sub": str, "kind": str, "scopes": list, "purpose": str, "lifetime_s": int}


def create_app(issuer: TokenIssuer, base_url: str, secret: str) -> Starlette:
    """Return the application; `secret` is what callers of the token endpoint must send.

    The `iss` of tokens is a stable name, not `base_url`: the port may change, tokens and trust must not. Raises
    InvalidValue for a secret that anybody could guess.
    """
    if not is_secret(secret):
        raise InvalidValue("secret", "not 64 hex digits", hint="private_secret makes one")
    expected = f"Bearer {secret}".encode()

    async def discovery(_: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": issuer.issuer_url,
                "jwks_uri": f"{base_url}/jwks.json",
                "token_endpoint": f"{base_url}/token",
                "id_token_signing_alg_values_supported": ["ES256"],
                "grant_types_supported": ["client_credentials"],
            }
        )

    async def jwks(_: Request) -> JSONResponse:
        return JSONResponse(issuer.jwks())

    async def token(request: Request) -> JSONResponse:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected):
            return _refusal(401, "invalid_client", "send the secret of the home's issuer folder as a bearer token")
        body = await _body(request)
        if isinstance(body, str):
            return _refusal(400, "invalid_request", body)
        try:
            minted = issuer.issue(
                body["sub"], body["kind"], body["scopes"], body["purpose"], lifetime_s=body["lifetime_s"]
            )
        except HeadwayError as error:  # which claim is wrong, and why, is the issuer's rule
            return _refusal(400, error.code, str(error))
        return JSONResponse({"access_token": minted, "token_type": "Bearer", "expires_in": body["lifetime_s"]})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", discovery),
            Route("/jwks.json", jwks),
            Route("/token", token, methods=["POST"]),
        ]
    )


async def _body(request: Request) -> dict[str, Any] | str:
    """Return the checked body, or what is wrong with it."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_BODY:
            return f"body over {MAX_BODY} bytes"
    try:
        body = json.loads(received)
    except ValueError:
        return "not JSON"
    if not isinstance(body, dict):
        return "not an object"
    body = {"lifetime_s": MAX_LIFETIME_S, **body}
    for field, form in _FIELDS.items():
        if type(body.get(field)) is not form:  # exactly: true is not a lifetime
            return f"{field}: expected {form.__name__}"
    if unknown := sorted(set(body) - set(_FIELDS)):
        return f"{unknown[0]}: unknown field"
    return body


def _refusal(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": message, "code": code}, status_code=status)


def main(home: str, port: int) -> None:
    """Serve on loopback until stopped, after publishing the keys as a file for verifiers of the same home."""
    import uvicorn

    settings = load_settings(home=home)
    issuer = development_issuer(settings.home, SystemClock())
    secret = private_secret(settings.home / "issuer" / SECRET_FILE)
    app = create_app(issuer, f"http://{LOOPBACK}:{port}", secret)
    uvicorn.run(app, host=LOOPBACK, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
