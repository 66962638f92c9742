"""`headway down` leaves no process and no port, and says so; what was kept is still readable."""

from __future__ import annotations

from pathlib import Path

from headway.cluster.local.process import ours, survivors
from tests.acceptance.platform import Platform
from tests.cluster.local.conftest import left


def test_down_leaves_no_process_and_no_port(platform: Platform) -> None:
    state = platform.state
    everything = ours(platform.home, state.services.values())
    assert len(everything) > 5
    stopped = platform.read("down")["stopped"]
    assert stopped >= len(state.services)
    assert survivors(everything) == []
    assert ours(platform.home) == []
    assert left(port for name, port in state.ports.items() if name != "block") == []
    assert not Path(state.ray_temp).exists()
    assert not (platform.home / "platform.json").exists()
    assert platform.run("headway", "status").returncode == 1
    assert platform.read("audit", "verify")["ok"]
    assert "headway up" in platform.headway("score", "churn", code=6).stderr
    assert platform.read("down")["stopped"] == 0
