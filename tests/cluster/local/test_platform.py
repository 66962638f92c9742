"""The real platform once: every service, Serve behind HAProxy, a token, and nothing left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from headway.cluster.local.lifecycle import down, up
from headway.cluster.local.process import ours, survivors
from headway.cluster.local.status import status
from headway.core.settings import load_settings
from tests.cluster.local.conftest import ROOT_OF_TESTS, left, until

# a driver of its own process: this one may hold the run's Ray session
DRIVER = """
import json, os, sys
from headway.core.platform_state import running_settings
from headway.core.ray_session import connect
settings = running_settings(home=sys.argv[1], project=sys.argv[2])
connect(settings)
connect(settings)
import ray
from ray import serve

@ray.remote(num_cpus=0.1)
def inside():
    from headway.core.platform_state import running_settings
    return running_settings().redis_control_url, os.nice(0), os.environ["OMP_NUM_THREADS"]

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Echo:
    async def __call__(self, request):
        return request.url.path

serve.run(Echo.bind(), name="echo", route_prefix="/echo", blocking=False)
import time, urllib.request
url = f"http://{settings.http_host}:{settings.http_port}/echo/x"
for _ in range(600):
    try:
        body = urllib.request.urlopen(url, timeout=5).read().decode()
        break
    except OSError:
        time.sleep(0.1)
print(json.dumps({"worker": ray.get(inside.remote()), "body": body}))
"""


def name(process: psutil.Process) -> str:
    """Return the name of a process, which may have ended since it was listed."""
    try:
        return str(process.name())
    except psutil.Error:
        return ""


@pytest.mark.platform
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_platform_from_up_to_down(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", project=ROOT_OF_TESTS)
    try:
        state = up(settings)
        until(lambda: status(settings).state == "up")
        assert status(settings).memory_mib < 4096
        run = subprocess.run(
            [sys.executable, "-c", DRIVER, str(settings.home), str(settings.project)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        answer = json.loads(run.stdout.splitlines()[-1])
        assert answer["worker"] == [state.redis_control_url, 0, "1"]
        assert answer["body"] == "/echo/x"
        everything = ours(settings.home, state.services.values())
        assert any("haproxy" in name(process) for process in everything)
    finally:
        down(settings)
    assert survivors(everything) == []
    assert left(port for name, port in state.ports.items() if name != "block") == []
    assert not Path(state.ray_temp).exists()
