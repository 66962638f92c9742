"""The whole replica on a platform of its own: Serve, HAProxy, Redis, a signed contract and a signed model.

Every test runs with the hook on and off. The move from one to the other is a rolling redeploy under load.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.stage import USE_CASE
from headway.client import Client
from headway.core.clock import SystemClock
from headway.core.errors import NotSigned, Tampered
from headway.serving.drain import drain
from headway.serving.recorder import decisions_folder
from tests.serving.callers import Got
from tests.serving.staging import Staged, staged
from tests.serving.test_spool import Lake

pytestmark = [pytest.mark.platform, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Served:
    """The use case, served one of the two ways."""

    platform: Staged
    hook: bool
    asked: int
    """Requests while the replica of the other way was replaced."""
    lost: list[Got]
    """Those that got no decision."""


@pytest.fixture(scope="module")
def platform() -> Iterator[Staged]:
    with staged() as platform:
        yield platform


@pytest.fixture(scope="module", params=[True, False], ids=["hook on", "hook off"])
def served(request: pytest.FixtureRequest, platform: Staged) -> Served:
    hook: bool = request.param
    if hook:
        platform.deploy(hook=True)
        return Served(platform, hook, 0, [])
    with platform.callers(rate=50) as callers:
        platform.deploy(hook=False)
    return Served(platform, hook, len(callers.got), callers.lost)


def test_requests_take_the_way_that_was_chosen(served: Served) -> None:
    """Serve numbers a request by uuid4, the gateway by uuid7: a Ray whose middlewares are gone is noticed here."""
    _, headers, _ = served.platform.ask("/v1/decisions", served.platform.bodies[0], served.platform.token())
    assert uuid.UUID(headers["x-request-id"]).version == (7 if served.hook else 4)


def test_a_rolling_redeploy_fails_nobody(served: Served) -> None:
    """The replica that goes finishes what it has, although Serve counts no request of the hook."""
    assert served.lost == []
    assert served.hook or served.asked > 100


def test_http_answers_and_bad_input_harms_nobody(served: Served) -> None:
    platform, token = served.platform, served.platform.token()
    rows = platform.stage.rows
    with Client(f"http://127.0.0.1:{platform.settings.http_port}", USE_CASE, token=token) as client:
        answer = client.decide(rows[:50])
        assert len(answer.decisions) == 50
        assert {d.arm for d in answer.decisions} == {"champion"}
        assert all(0 <= d.score <= 1 for d in answer.decisions)
    missing = {name: value for name, value in rows[0].items() if name != "amount"}
    for body, status, field in [
        (json.dumps({"rows": [missing]}).encode(), 422, "rows[0].amount"),
        (b'{"rows":', 400, None),
        (b"x" * (2 << 20), 413, "body"),
    ]:
        code, _, said = platform.ask("/v1/decisions", body, token)
        assert (code, said.get("field")) == (status, field)
        assert platform.ask("/v1/decisions", platform.bodies[0], token)[0] == 200
    assert platform.ask("/v1/decisions", b"{}", "forged")[0] == 401


def test_decisions_reach_the_log(served: Served) -> None:
    platform = served.platform
    with Client(f"http://127.0.0.1:{platform.settings.http_port}", USE_CASE, token=platform.token()) as client:
        made = {d.decision_id for d in client.decide(platform.stage.rows[:20]).decisions}
    folder, lake = decisions_folder(platform.settings.home, USE_CASE), Lake()
    clock = SystemClock()
    end = clock.monotonic() + 30
    found: set[str] = set()
    while not made <= found:
        assert clock.monotonic() < end, "the decisions did not reach the spool"
        drain(folder, f"decisions.{USE_CASE}", lake)
        found = {i for table in lake.batches.values() for i in table["decision_id"].to_pylist()}


def test_what_is_not_as_signed_is_never_assembled(platform: Staged) -> None:
    from headway.serving.assembly import assemble

    settings, model = platform.settings, platform.stage.model
    contract = settings.project / "serve_apps" / USE_CASE / "contract.yaml"
    signatures = contract.with_name("contract.signatures.json")
    cases: list[tuple[Any, Any, bytes | None]] = [
        (contract, Tampered, contract.read_bytes().replace(b'"burst":1000000', b'"burst":1000001')),
        (signatures, NotSigned, None),
        (model, Tampered, model.read_bytes() + b" "),
    ]
    for path, kind, changed in cases:
        kept = path.read_bytes()
        assert changed != kept
        try:
            if changed is None:
                path.unlink()
            else:
                path.write_bytes(changed)
            with pytest.raises(kind):
                assemble(USE_CASE, settings, replica="test")
        finally:
            path.write_bytes(kept)
