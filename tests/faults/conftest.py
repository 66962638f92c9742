from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.features.lake import Location
from headway.features.streams.drivers.redis import RedisStream
from tests.features.streams.world import TOPIC
from tests.features.valkey import DURABLE, Valkey, serving


@pytest.fixture
def lake(tmp_path: Path) -> Location:
    return Location(catalog_uri=f"sqlite:///{tmp_path}/c.db?timeout=0.5", warehouse=f"file://{tmp_path}/w")


@pytest.fixture
def topics() -> Iterator[Valkey]:
    """A durable server for topics and checkpoints, with the topic on it."""
    with serving(*DURABLE) as server:
        RedisStream(server.url).create(TOPIC, partitions=1)
        yield server


@pytest.fixture
def features() -> Iterator[Valkey]:
    """A server for features, which forgets when it is killed."""
    with serving() as server:
        yield server


@pytest.fixture
def small() -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = Path(tempfile.mkdtemp(prefix="small"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "headway-test", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip("mounting a small file system needs rights that this account lacks")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()
