from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray import serve
from ray.exceptions import GetTimeoutError, RayActorError
from ray.serve.exceptions import RayServeException

from headway.client import Client, Transport
from headway.core.errors import (
    CapacityError,
    Conflict,
    Forbidden,
    HeadwayError,
    InvalidValue,
    Malformed,
    NotFound,
    PlatformError,
    QuotaExceeded,
    TooLarge,
    Unauthenticated,
    Unavailable,
)  # fmt: skip
from tests.serving.helpers import NOW, Toy, run


class Local(Transport):
    """Straight into the service, as a handle call would."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy

    def send(self, method: str, path: str, body: bytes, *, token: str, key: str | None = None) -> tuple[int, bytes]:
        headers = {"idempotency-key": key} if key else {}
        status, _, content = run(self.toy.http(method, path, body, token=token, headers=headers))
        return status, content

    def close(self) -> None:
        self.toy.outcomes.close()


def client(toy: Toy, token: str = "alice") -> Client:
    made = Client.__new__(Client)
    made._begin(Local(toy), "toy", lambda: token)
    return made


ROW = {"customer_id": 1, "shop": "a", "amount": 80}


def test_decide_then_report_outcomes(tmp_path: Path) -> None:
    with client(Toy(tmp_path)) as c:
        assert c.ready()
        answer = c.decide([ROW, {**ROW, "amount": 20}], request_id="q")
        assert answer.id == "q"
        assert [d.label for d in answer.decisions] == ["high", "low"]
        rows = [{"decision_id": d.decision_id, "label": 1, "event_time": NOW} for d in answer.decisions]
        assert c.outcomes(rows).accepted == 2
        assert c.outcomes(rows).duplicate == 2


def test_errors_come_back_as_ours(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    with client(toy) as c, pytest.raises(InvalidValue) as caught:
        c.decide([ROW, {"customer_id": 1, "shop": "a"}])
    assert (caught.value.field, caught.value.code) == ("rows[1].amount", "feature_missing")
    with pytest.raises(Forbidden):
        client(toy).decide([ROW], as_of="2018-01-01")
    with pytest.raises(Unauthenticated):
        client(toy, token="x").decide([ROW])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Malformed), (401, Unauthenticated), (403, Forbidden), (409, Conflict), (413, TooLarge), (422, InvalidValue),
     (429, QuotaExceeded), (503, Unavailable), (500, PlatformError), (404, NotFound)],
)  # fmt: skip
@pytest.mark.parametrize("content", [json.dumps({"error": "e", "code": "c"}).encode(), b"<html>"])
def test_every_status_has_a_kind(status: int, kind: type[HeadwayError], content: bytes) -> None:
    from headway.client import error_from

    error: Any = error_from(status, content)
    assert type(error) is kind
    assert error.message
    assert error.code == ("c" if content.startswith(b"{") else kind.code)
    assert isinstance(error, CapacityError) == (status in (429, 503))
    if isinstance(error, CapacityError):
        assert error.retry_after_s == 1.0


def test_a_refusal_says_when_to_come_back_whichever_way_it_went(tmp_path: Path) -> None:
    toy = Toy(tmp_path, rate=0.1, burst=1)
    with client(toy) as c:
        c.decide([ROW])
        with pytest.raises(QuotaExceeded) as caught:
            c.decide([ROW])
    assert 1.0 < caught.value.retry_after_s <= 10.0
    assert caught.value.code == "quota_exceeded"


def test_what_does_not_exist_is_not_found(tmp_path: Path) -> None:
    with client(Toy(tmp_path)) as c, pytest.raises(NotFound, match="unknown path") as caught:
        c._send("POST", "/v1/nothing", b"{}", None)
    assert caught.value.code == "not_found"


@pytest.mark.parametrize(
    "fault", [TimeoutError("late"), RayActorError(), GetTimeoutError("late"), RayServeException("gone")]
)
def test_a_call_that_no_replica_answers_is_unavailable(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handle:
        is_initialized = True

        @property
        def respond(self) -> Handle:
            return self

        def remote(self, *_: Any, **__: Any) -> Handle:
            return self

        def result(self, timeout_s: float) -> Any:
            raise fault

    monkeypatch.setattr(serve, "get_app_handle", lambda _: Handle())
    with Client.from_ray("toy", token="t") as c, pytest.raises(Unavailable, match=type(fault).__name__) as caught:
        c.decide([ROW])
    assert caught.value.__cause__ is fault
