"""Fixtures every room shares: one Ray session for the whole run, settings in a folder of their own, a manual clock."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from headway.core.clock import ManualClock
from headway.core.settings import Settings, load_settings
from tests.scheduling import ByFile

ROOT = Path(__file__).resolve().parent.parent
hypothesis.settings.register_profile("laws", deadline=None)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("laws")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with slow tests begin first, so that no process is alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("platform")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Say what may run at the same time (`pytest -n 2`)."""
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Tests see no settings of the developer's own platform."""
    names = [name for name in os.environ if name.startswith(("HEADWAY_", "RAY_ADDRESS"))]
    kept = {name: os.environ.pop(name) for name in names}
    yield
    os.environ.update(kept)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty home with this repository's definitions."""
    return load_settings(home=tmp_path / "home", project=ROOT)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at 2018-08-08T00:00:00Z."""
    return ManualClock(1_533_686_400_000_000)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[str]:
    """A small Ray of this run alone; yields its address. Use unique actor, application and route names per test."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="r"))
    environment = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "HEADWAY_BACKGROUND_NICENESS": "0",  # here tests wait for what works in the background
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # workers import the tests' helpers and this repository's definitions
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    context = ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _temp_dir=str(folder),
        namespace="headway",
        log_to_driver=False,
    )
    try:
        yield str(context.address_info["gcs_address"])
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
