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
    answers: list[httpx.Response] = []

    def ask() -> None:
        while not over.wait(0.02):
            answers.append(authorised.post("/v1/decisions", json=BODY))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        deployed = platform.read("deploy", "churn")
    finally:
        over.set()
        asking.join()
    assert deployed["url"] == f"{platform.url}/churn"
    assert deployed["version"] == platform.first["use_cases"]["churn"]["model"]["version"]
    # a machine that starts replicas may shed a few, and says when to come back: that is no failure
    refused = [answer for answer in answers if answer.status_code != 200]
    assert all(answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert len(refused) <= len(answers) // 4
    assert len(answers) - len(refused) > 20
    assert platform.replicas()
    assert not platform.replicas() & replicas
