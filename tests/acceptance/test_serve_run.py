"""`serve run` of the application in a plain shell: Ray's own way to start it brings the same checks and answers."""

from __future__ import annotations

import httpx

from tests.acceptance.platform import BODY, Platform, until

AS_OF = {**BODY, "as_of": "1998-02-01T00:00:00Z"}


def test_serve_run_from_the_projects_root(platform: Platform, authorised: httpx.Client) -> None:
    before = platform.replicas()
    score = authorised.post("/v1/decisions", json=AS_OF).json()["decisions"][0]["score"]
    command = ("run", "serve_apps.churn:app", "--name", "churn", "--route-prefix", "/churn", "--non-blocking")
    done = platform.run("serve", *command, timeout=120)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"

    def replaced() -> bool:
        now = platform.replicas()
        return bool(now) and not now & before

    until(replaced, within_s=90, message=f"the replicas were not replaced: {done.stderr}")
    until(
        lambda: authorised.get("/v2/health/ready").status_code == 200,
        within_s=90,
        message="the new replica is not ready",
    )
    answer = authorised.post("/v1/decisions", json=AS_OF)
    assert answer.status_code == 200
    assert answer.json()["decisions"][0]["score"] == score
    assert httpx.post(f"{platform.url}/churn/v1/decisions", json=BODY, trust_env=False).status_code == 401
