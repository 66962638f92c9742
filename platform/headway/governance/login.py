"""The token of the person at the command line: stored by `headway login`, verified at every use."""

from __future__ import annotations

from pathlib import Path

from headway.core.errors import EvidenceError, TooLarge, Unauthenticated
from headway.core.types import Principal
from headway.governance.files import private_folder, read_regular, write_atomic
from headway.governance.identity import MAX_TOKEN, TokenVerifier

_HINT = "headway login"


def store_token(home: Path, token: str) -> Path:
    """Keep a token where only its owner can read it, and return the file."""
    path = private_folder(home / "login") / "token"
    write_atomic(path, token.encode())
    return path


def current_token(home: Path) -> str:
    """Return the stored token, unverified; Unauthenticated if there is none."""
    try:
        return read_regular(home / "login" / "token", limit=MAX_TOKEN).decode("ascii").strip()
    except FileNotFoundError:
        raise Unauthenticated("nobody is logged in", hint=_HINT) from None
    except (OSError, UnicodeError, EvidenceError, TooLarge) as error:
        raise Unauthenticated(f"the stored token cannot be read: {error}", hint=_HINT) from error


def current_principal(home: Path, verifier: TokenVerifier) -> Principal:
    """Return who is logged in; Unauthenticated if nobody is, or no longer."""
    try:
        return verifier.verify(current_token(home))
    except Unauthenticated as error:
        raise Unauthenticated(error.message, hint=_HINT) from error
