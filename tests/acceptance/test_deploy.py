"""`headway deploy` over a running use case: a rolling update, or one line that says why not."""

from __future__ import annotations

import threading

import httpx

from tests.acceptance.platform import BODY, Platform


def test_a_replica_that_cannot_start_is_one_line_and_the_old_ones_serve(
    platform: Platform, authorised: httpx.Client
) -> None:
    platform.headway("login", "--user", "tester")
    replicas = platform.replicas()
    rules = platform.project / "serve_apps" / "churn" / "rules.py"
    kept = rules.read_text()
    rules.write_text(f"{kept}\nraise RuntimeError('the rules are broken')\n")
    try:
        said = platform.headway("deploy", "churn", code=6).stderr
    finally:
        rules.write_text(kept)
    assert "churn did not become ready" in said
    assert "the rules are broken" in said
    assert "Traceback" not in said
    assert replicas <= platform.replicas()
    assert authorised.post("/v1/decisions", json=BODY).status_code == 200


def test_a_redeploy_fails_no_request(platform: Platform, authorised: httpx.Client) -> None:
    platform.headway("login", "--user", "tester")
    replicas, over = platform.replicas(), threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        while not over.wait(0.02):
            statuses.append(authorised.post("/v1/decisions", json=BODY).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        deployed = platform.read("deploy", "churn")
    finally:
        over.set()
        asking.join()
    assert deployed["url"] == f"{platform.url}/churn"
    assert deployed["version"] == platform.first["use_cases"]["churn"]["model"]["version"]
    assert len(statuses) > 20
    assert set(statuses) == {200}
    assert platform.replicas()
    assert not platform.replicas() & replicas
