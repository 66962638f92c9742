"""Decision ids that carry their own proof: a UUIDv7 whose random bits end in a keyed tag.

An outcome for an id that this use case never issued is refused without any lookup. Of the 74 bits that RFC 9562 leaves
free, 34 are random (two ids of one millisecond collide with probability 2^-34) and 40 are the tag: AES of one block
(time, random bits, use case) is a pseudo-random function, and one call tags a whole batch.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from headway.core.errors import CorruptState

_KEY_BYTES = 32
_POOL = 4_096


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
    """Makes and checks the ids of one use case."""

    def __init__(self, key: bytes, use_case: str) -> None:
        derived = hashlib.blake2b(use_case.encode(), key=key, digest_size=_KEY_BYTES, person=b"decision-id").digest()
        self._cipher: Any = Cipher(algorithms.AES(derived), modes.ECB()).encryptor()  # noqa: S305  # one block: a PRF, not a mode
        self._random = b""

    def make(self, count: int, now: int) -> list[str]:
        """Return `count` ids for the time `now` (UTC microseconds)."""
        blocks = np.zeros((count, 16), dtype=np.uint8)
        blocks[:, :6] = np.frombuffer((now // 1_000 & (1 << 48) - 1).to_bytes(6, "big"), dtype=np.uint8)
        blocks[:, 6:11] = self._bytes(5 * count).reshape(count, 5)
        blocks[:, 6] &= 0x03
        tags = self._tags(blocks)
        return _texts(blocks, tags)

    def known(self, text: str) -> bool:
        """Say whether this use case issued the id."""
        try:
            value = uuid.UUID(text)
        except ValueError:
            return False
        if str(value) != text or value.version != 7 or value.variant != uuid.RFC_4122:
            return False
        free = ((value.int >> 64 & 0xFFF) << 62) | (value.int & (1 << 62) - 1)
        block = (value.int >> 80).to_bytes(6, "big") + (free >> 40).to_bytes(5, "big") + bytes(5)
        tag = self._tags(np.frombuffer(block, dtype=np.uint8).reshape(1, 16))[0]
        return bool(tag.tobytes() == (free & (1 << 40) - 1).to_bytes(5, "big"))

    def _tags(self, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        sealed = self._cipher.update(blocks.tobytes())
        return np.frombuffer(sealed, dtype=np.uint8).reshape(-1, 16)[:, :5]

    def _bytes(self, count: int) -> npt.NDArray[np.uint8]:
        if len(self._random) < count:
            self._random = os.urandom(max(_POOL, count))
        taken, self._random = self._random[:count], self._random[count:]
        return np.frombuffer(taken, dtype=np.uint8)


def _texts(blocks: npt.NDArray[np.uint8], tags: npt.NDArray[np.uint8]) -> list[str]:
    """Lay time, version, variant, random bits and tag out as RFC 9562 wants them."""
    texts = []
    for block, tag in zip(blocks[:, :11].tolist(), tags.tolist(), strict=True):
        free = int.from_bytes(bytes(block[6:]), "big") << 40 | int.from_bytes(bytes(tag), "big")
        value = int.from_bytes(bytes(block[:6]), "big") << 80 | 0x7 << 76 | (free >> 62) << 64 | 0b10 << 62
        text = f"{value | free & (1 << 62) - 1:032x}"
        texts.append(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    return texts
