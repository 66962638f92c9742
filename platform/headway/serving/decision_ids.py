"""Decision ids that carry their own proof: a UUIDv7 whose random bits end in a keyed tag.

An outcome for an id that this use case never issued is refused without any lookup. Of the 74 bits that RFC 9562 leaves
free, 34 are random (two ids of one millisecond collide with probability 2^-34) and 40 are the tag: AES of one block
(time, random bits, use case) is a pseudo-random function, and one call tags a whole batch.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from headway.core.errors import CorruptState
from headway.core.ids import uuid7_of

_KEY_BYTES = 32
_POOL = 4_096
_TAG_BITS = 40
_DRAWN = 5
"""Random bytes drawn per id."""
_DRAW = (1 << 34) - 1


def load_key(path: Path) -> bytes:
    """Return the installation's key, made on first use (0600); replicas that race end with the same one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass  # another replica was first: its key counts
        finally:
            draft.unlink()
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise CorruptState(
            f"{path} holds {len(key)} bytes, not {_KEY_BYTES}",
            hint="restore it from a backup; with a new key, outcomes of earlier decisions are refused as unknown",
        )
    return key


class DecisionIds:
    """Makes and checks the ids of one use case; one thread makes, any may check.

    A cipher context serves one call at a time, so checking has its own behind a lock, and making never waits for it.
    """

    def __init__(self, key: bytes, use_case: str) -> None:
        derived = hashlib.blake2b(use_case.encode(), key=key, digest_size=_KEY_BYTES, person=b"decision-id").digest()
        cipher = Cipher(algorithms.AES(derived), modes.ECB())  # noqa: S305  # one block: a PRF, not a mode
        self._cipher: Any = cipher.encryptor()
        self._checking: Any = cipher.encryptor()
        self._check = threading.Lock()
        self._random = b""

    def make(self, count: int, now: int) -> list[str]:
        """Return `count` ids for the time `now` (UTC microseconds)."""
        time = (now // 1_000 & (1 << 48) - 1).to_bytes(6, "big")
        drawn = self._bytes(_DRAWN * count)
        draws = [int.from_bytes(drawn[i : i + _DRAWN], "big") & _DRAW for i in range(0, len(drawn), _DRAWN)]
        sealed = self._cipher.update(b"".join(_block(time, draw) for draw in draws))
        return [
            uuid7_of(now, draw << _TAG_BITS | int.from_bytes(sealed[16 * i : 16 * i + _TAG_BITS // 8], "big"))
            for i, draw in enumerate(draws)
        ]

    def known(self, text: str) -> bool:
        """Say whether this use case issued the id."""
        try:
            value = uuid.UUID(text)
        except ValueError:
            return False
        if str(value) != text or value.version != 7 or value.variant != uuid.RFC_4122:
            return False
        free = ((value.int >> 64 & 0xFFF) << 62) | (value.int & (1 << 62) - 1)
        block = _block((value.int >> 80).to_bytes(6, "big"), free >> _TAG_BITS)
        with self._check:
            sealed: bytes = self._checking.update(block)
        return int.from_bytes(sealed[: _TAG_BITS // 8], "big") == free & (1 << _TAG_BITS) - 1

    def _bytes(self, count: int) -> bytes:
        if len(self._random) < count:
            self._random = os.urandom(max(_POOL, count))
        taken, self._random = self._random[:count], self._random[count:]
        return taken


def _block(time: bytes, draw: int) -> bytes:
    """Return what the tag is made of; the use case is in the key."""
    return time + draw.to_bytes(_DRAWN, "big") + bytes(5)
