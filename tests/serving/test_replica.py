"""A handle call has the bounds of an HTTP request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headway.serving.gateway import BODY_LIMIT
from headway.serving.replica import Replica
from tests.serving.helpers import Toy

BODY = b'{"rows": [{"customer_id": 1, "shop": "a", "amount": 1}]}'


def answer(
    folder: Path, body: bytes = BODY, *, token: str | None = "alice", **more: Any
) -> tuple[int, dict[str, Any], Toy]:
    toy = Toy(folder)
    replica = Replica("/toy", toy)  # type: ignore[arg-type]  # of its parts only the service is used
    status, said = toy.call(lambda _: replica.respond("POST", "/v1/decisions", body, token=token, **more))
    return status, json.loads(said), toy


@pytest.mark.parametrize(
    ("given", "kept"), [("a\ud800b\n", "ab"), ("\ud800", "unnamed"), ("x" * 1_000, "x" * 128), ("r9", "r9")]
)
def test_a_request_id_is_kept_as_printable_ascii(tmp_path: Path, given: str, kept: str) -> None:
    status, _, toy = answer(tmp_path, request_id=given)
    assert status == 200
    [batch] = toy.recorder.batches
    assert [request for _, request, _ in batch.calls] == [kept]


def test_an_empty_request_id_is_none(tmp_path: Path) -> None:
    _, _, toy = answer(tmp_path, request_id="")
    [batch] = toy.recorder.batches
    assert [len(request) for _, request, _ in batch.calls] == [36]


@pytest.mark.parametrize("key", ["", "\u00e4", "\ud800", "x" * 129])
def test_a_key_out_of_bounds_is_refused(tmp_path: Path, key: str) -> None:
    status, said, toy = answer(tmp_path, idempotency_key=key)
    assert (status, said["code"], said["field"]) == (400, "malformed", "idempotency-key")
    assert toy.recorder.batches == []


def test_a_body_above_the_limit_is_refused_unread_and_a_stranger_before_it(tmp_path: Path) -> None:
    status, said, _ = answer(tmp_path / "1", b" " * (BODY_LIMIT + 1))
    assert (status, said["code"], said["field"]) == (413, "too_large", "body")
    status, said, _ = answer(tmp_path / "2", b" " * (BODY_LIMIT + 1), token=None)
    assert (status, said["code"]) == (401, "unauthenticated")
    assert answer(tmp_path / "3", BODY.ljust(BODY_LIMIT))[0] == 200
