"""The whole replica on a platform of its own: Serve, HAProxy, Redis, a signed contract and a signed model.

Every test runs with the hook on and off. The move from one to the other is a rolling redeploy under load.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from benchmarks.stage import USE_CASE, sign_contract
from headway.client import Client
from headway.core.clock import SystemClock
from headway.core.errors import NotSigned, Tampered
from headway.core.ray_session import GRPC_MESSAGE_BYTES
from headway.serving.drain import drain
from headway.serving.grpc.messages import REQUESTS
from headway.serving.recorder import decisions_folder
from tests.serving.callers import Got
from tests.serving.grpc.helpers import infer, metadata, send
from tests.serving.staging import ROOT, Staged, staged, until
from tests.serving.test_spool import Lake

CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
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


def test_grpc_answers_as_http_does(served: Served) -> None:
    """The same refusals, and a request id that comes back, on both ways through a replica."""
    platform, said = served.platform, {"application": USE_CASE, "x_request_id": "mine"}
    token, port, row = platform.token(), platform.state.grpc_port, platform.stage.rows[0]
    whole = {name: ("FP32" if name == "amount" else "INT64", [value]) for name, value in row.items()}
    good = infer(whole, model=USE_CASE, raw=True)
    missing = infer({name: column for name, column in whole.items() if name != "amount"}, model=USE_CASE)

    async def work() -> None:
        answer = await send(port, "ModelInfer", good, metadata(token, **said))
        assert json.loads(answer.parameters["arm"].string_param) == ["champion"]
        for message, bearer, code, text in [
            (missing, token, "INVALID_ARGUMENT", "inputs.amount"),
            (infer(whole, model="x" * (2 << 20)), token, "RESOURCE_EXHAUSTED", "larger than max"),
            (infer(whole, model="x" * (GRPC_MESSAGE_BYTES - 200)), token, "NOT_FOUND", "xxx"),
            (good, "forged", "UNAUTHENTICATED", "token"),
            (good, platform.token(purpose="marketing"), "PERMISSION_DENIED", "marketing"),
        ]:
            with pytest.raises(grpc.aio.AioRpcError, match=text) as refused:
                await send(port, "ModelInfer", message, metadata(bearer, **said))
            assert refused.value.code().name == code
            if code != "RESOURCE_EXHAUSTED":
                assert dict(refused.value.trailing_metadata())["x-request-id"] == "mine"
        both = [await send(port, "ModelInfer", good, metadata(token, idempotency_key="k", **said)) for _ in range(2)]
        assert both[0] == both[1]
        assert (await send(port, "ModelReady", REQUESTS["ModelReady"](name=USE_CASE), metadata(None, **said))).ready

    asyncio.run(work())


@pytest.mark.skipif(not CLIENTS.exists(), reason="the clients are not installed: make clients")
def test_the_documented_caller_runs(served: Served) -> None:
    platform = served.platform
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "grpc.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "127.0.0.1:9000" in block
    done = subprocess.run(
        [CLIENTS, "-c", block.replace("127.0.0.1:9000", f"127.0.0.1:{platform.state.grpc_port}")],
        env={**os.environ, "TOKEN": platform.token()}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("b'allow'") + done.stdout.count("b'block'") == 2


def test_the_application_is_chosen_by_metadata(platform: Staged) -> None:
    """Two use cases behind one port; without the key nobody is guessed."""
    sign_contract(platform.settings, "churn")
    platform.deploy("churn")
    churn: dict[str, Any] = {"customer_id": ("INT64", [1]), "amount": ("FP32", [5.0])}
    row = platform.stage.rows[0]
    fraud: dict[str, Any] = {name: ("FP32" if name == "amount" else "INT64", [value]) for name, value in row.items()}
    port, found = platform.state.grpc_port, {}

    async def work() -> None:
        for application, columns, purpose in (
            (USE_CASE, fraud, "fraud_prevention"),
            ("churn", churn, "customer_retention"),
        ):
            token = platform.token(application, purpose)
            message = infer(columns, model=application)
            answer = await send(port, "ModelInfer", message, metadata(token, application=application))
            found[application] = (answer.model_name, json.loads(answer.parameters["arm"].string_param))
            for other in (metadata(token), metadata(token, application="nobody")):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await send(port, "ModelInfer", message, other)
                assert refused.value.code() == grpc.StatusCode.NOT_FOUND

    asyncio.run(work())
    assert found == {USE_CASE: (USE_CASE, ["champion"]), "churn": ("churn", ["rules"])}, "churn has no model here"


def test_decisions_reach_the_log(served: Served) -> None:
    platform = served.platform
    with Client(f"http://127.0.0.1:{platform.settings.http_port}", USE_CASE, token=platform.token()) as client:
        made = {d.decision_id for d in client.decide(platform.stage.rows[:20]).decisions}
    folder, lake = decisions_folder(platform.settings.home, USE_CASE), Lake()
    clock = SystemClock()
    end = clock.monotonic() + 90
    found: set[str] = set()
    while not made <= found:
        assert clock.monotonic() < end, "the decisions did not reach the spool"
        time.sleep(0.1)
        drain(folder, f"decisions.{USE_CASE}", lake)
        found = {i for table in lake.batches.values() for i in table["decision_id"].to_pylist()}


def test_prometheus_sees_every_request_hook_on_and_off(served: Served) -> None:
    """Of a way in that no other test uses: what they sent may be shown late."""
    platform, token = served.platform, served.platform.token()
    before = _requests(platform)
    rows = platform.stage.rows
    for row in rows[:30]:
        body = json.dumps({"dataframe_records": [row]}).encode()
        assert platform.ask("/invocations", body, token)[0] == 200
    assert platform.ask("/invocations", b"{", token)[0] == 400

    def grown() -> dict[str, float]:
        return {status: count - before.get(status, 0) for status, count in _requests(platform).items()}

    wanted = {"2xx": 30.0, "4xx": 1.0}
    until(lambda: all(grown().get(status, 0) >= count for status, count in wanted.items()), within_s=60)
    assert grown() == wanted


def _requests(platform: Staged) -> dict[str, float]:
    """Return how many requests of the route `invocations` Prometheus sees, by class of status, over all replicas."""
    with urllib.request.urlopen(f"http://127.0.0.1:{platform.state.ports['ray-metrics']}/metrics", timeout=10) as got:
        lines = re.findall(r"^ray_headway_requests_total\{(.*)\} (\S+)$", got.read().decode(), re.MULTILINE)
    found: dict[str, float] = {}
    for text, value in lines:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
        if (labels["use_case"], labels["route"]) == (USE_CASE, "invocations"):
            found[labels["status"]] = found.get(labels["status"], 0.0) + float(value)
    return found


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
