"""The whole replica on a platform of its own: Serve, HAProxy, Redis, a signed contract and a signed model."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.ours import decide_token, deployed, platform
from benchmarks.stage import USE_CASE, Stage
from headway.client import Client
from headway.core.clock import SystemClock
from headway.core.errors import NotSigned, Tampered
from headway.serving.drain import drain
from headway.serving.recorder import decisions_folder
from tests.serving.test_spool import Lake

pytestmark = [pytest.mark.platform, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    work = Path(tempfile.mkdtemp(prefix="ht"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        stage = stack.enter_context(platform(work))
        stack.enter_context(deployed(stage))
        yield stage


def post(stage: Stage, path: str, body: bytes, token: str) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{stage.settings.http_port}/{USE_CASE}{path}",
        data=body,
        headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_http_answers_and_bad_input_harms_nobody(stage: Stage) -> None:
    token = decide_token(stage)
    url = f"http://127.0.0.1:{stage.settings.http_port}"
    with Client(url, USE_CASE, token=token) as client:
        answer = client.decide(stage.rows[:50])
        assert len(answer.decisions) == 50
        assert {d.arm for d in answer.decisions} == {"champion"}
        assert all(0 <= d.score <= 1 for d in answer.decisions)
    missing = {name: value for name, value in stage.rows[0].items() if name != "amount"}
    for body, status, field in [
        (json.dumps({"rows": [missing]}).encode(), 422, "rows[0].amount"),
        (b'{"rows":', 400, None),
        (b"x" * (2 << 20), 413, "body"),
    ]:
        code, said = post(stage, "/v1/decisions", body, token)
        assert (code, said.get("field")) == (status, field)
        assert post(stage, "/v1/decisions", json.dumps({"rows": stage.rows[:1]}).encode(), token)[0] == 200
    assert post(stage, "/v1/decisions", b"{}", "forged")[0] == 401


def test_decisions_reach_the_log(stage: Stage) -> None:
    with Client(f"http://127.0.0.1:{stage.settings.http_port}", USE_CASE, token=decide_token(stage)) as client:
        made = {d.decision_id for d in client.decide(stage.rows[:20]).decisions}
    folder, lake = decisions_folder(stage.settings.home, USE_CASE), Lake()
    clock = SystemClock()
    end = clock.monotonic() + 30
    found: set[str] = set()
    while not made <= found:
        assert clock.monotonic() < end, "the decisions did not reach the spool"
        drain(folder, "decisions.fraud", lake)
        found = {i for table in lake.batches.values() for i in table["decision_id"].to_pylist()}


def test_what_is_not_as_signed_is_never_assembled(stage: Stage) -> None:
    from headway.serving.assembly import assemble

    contract = stage.settings.project / "serve_apps" / USE_CASE / "contract.yaml"
    signatures = contract.with_name("contract.signatures.json")
    model = stage.model
    for path, kind, changed in [
        (contract, Tampered, contract.read_bytes().replace(b'"burst":1000000', b'"burst":1000001')),
        (signatures, NotSigned, None),
        (model, Tampered, model.read_bytes() + b" "),
    ]:
        kept = path.read_bytes()
        assert changed != kept
        try:
            if changed is None:
                path.unlink()
            else:
                path.write_bytes(changed)
            with pytest.raises(kind):
                assemble(USE_CASE, stage.settings, replica="test")
        finally:
            path.write_bytes(kept)
