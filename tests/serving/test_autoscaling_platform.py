"""On the real platform a spike brings a second replica, quiet lets both go, and the next call brings one back."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import write_requests
from benchmarks.serving.ours import decide_token, platform
from benchmarks.stage import USE_CASE, Stage, our_requests
from headway.client import Client
from headway.core.platform_state import read_state
from headway.core.ray_session import driver_env
from tests.conftest import ROOT

pytestmark = [pytest.mark.soak, pytest.mark.platform, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

# a driver of its own: Ray and Serve read their environment once
DRIVER = """
import sys, time
from headway.core.platform_state import resolved_settings
from headway.core.ray_session import start_serve

home, project, use_case = sys.argv[1:4]
start_serve(resolved_settings(home=home, project=project))
from ray import serve
from headway.serving import application

scaling = {
    "min_replicas": 0, "initial_replicas": 1, "max_replicas": 2, "upscale_delay_s": 0.0, "downscale_delay_s": 0.0,
    "metrics_interval_s": 1.0, "look_back_period_s": 3.0,
    "policy": {
        "policy_function": "headway.serving.autoscaling:DemandPolicy",
        # a busy machine gives a replica little of a core: the numbers are small, the way is the same
        "policy_kwargs": {"queue_rows": 45.0, "target_busy": 0.2, "calm_s": 5.0, "reversal_s": 5.0, "idle_s": 30.0},
    },
}
serve.run(application(use_case, autoscaling_config=scaling), name=use_case, route_prefix=f"/{use_case}")
seen = None
while True:
    (deployment,) = serve.status().applications[use_case].deployments.values()
    states = {state: count for state, count in deployment.replica_states.items() if count}
    running = states.get("RUNNING", 0)
    if set(states) <= {"RUNNING"} and running != seen:
        seen = running
        print(running, flush=True)
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    work = Path(tempfile.mkdtemp(prefix="ht"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        yield stack.enter_context(platform(work))


def test_replicas_come_with_a_spike_go_when_it_is_over_and_one_comes_back(stage: Stage, tmp_path: Path) -> None:
    settings = stage.settings
    state = read_state(settings.home)
    assert state is not None
    requests = tmp_path / "requests"
    write_requests(requests, our_requests(stage, decide_token(stage)))
    errors = (tmp_path / "driver.log").open("w")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(settings.home), str(settings.project), USE_CASE],
        cwd=ROOT,
        env={**os.environ, **driver_env(settings, state)},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    spike: subprocess.Popen[bytes] | None = None
    watch = threading.Timer(400, driver.kill)
    watch.start()
    try:
        assert driver.stdout is not None
        numbers = (int(line) for line in driver.stdout)
        assert next(numbers) == 1
        port = str(settings.http_port)
        spike = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", "127.0.0.1", port, "8", "200", str(requests)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        assert next(numbers) == 2
        spike.kill()
        assert next(numbers) == 1
        assert next(numbers) == 0
        with Client(f"http://127.0.0.1:{port}", USE_CASE, token=decide_token(stage), timeout_s=60) as client:
            assert client.decide(stage.rows[:1]).decisions[0].arm == "champion"
        assert next(numbers) == 1
    finally:
        watch.cancel()
        driver.kill()
        driver.wait()
        if driver.stdout is not None:
            driver.stdout.close()
        errors.close()
        if spike is not None:
            spike.kill()
            spike.wait()
