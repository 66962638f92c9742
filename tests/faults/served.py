"""A use case served by a process of its own, with real servers behind it that a test may kill, stop, slow or fill."""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import uvicorn

from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.counts import RedisCountsChannel
from headway.core.routing import VersionRef, promote
from headway.core.times import HOUR, MINUTE
from headway.features.online import OnlineReader
from headway.features.online_store import OnlineStore
from headway.features.profile import build_profile
from headway.models.input_schema import InputSchema
from headway.serving.assembly import Assembly
from headway.serving.drivers import Drivers
from headway.serving.hook import CONNECTION, HotPath, register
from headway.serving.objectives import Objectives
from headway.serving.wire import open_lanes
from tests.features.valkey import DURABLE, Valkey
from tests.serving.callers import Callers
from tests.serving.helpers import FakeModel, FakeVerifier, activity, principal, rules, service, shops, terms
from tests.serving.staging import until

BUDGET_S = 0.3
"""The longest wait for the online store."""
_PRELOADED = ["tests.faults.served"]
_CUSTOMERS = 50


class ShiftedClock(SystemClock):
    """The machine's clock after somebody set it."""

    def __init__(self, shift: Any) -> None:
        self._shift = shift

    def now(self) -> int:
        return super().now() + int(self._shift.value)


class Shared:
    """What the process and the test tell each other."""

    def __init__(self, context: Any) -> None:
        self.port = context.Value(ctypes.c_long, 0)
        self.shift = context.Value(ctypes.c_longlong, 0)
        """Microseconds that the clock is off."""
        self.dropped = context.Value(ctypes.c_long, 0)
        """Rows that the decision log could not take."""


def load(ref: VersionRef) -> Any:
    """Return a model that breaks on some amounts (`tests.serving.helpers.FakeModel`)."""
    names = list(service.features)
    sample = np.random.default_rng(1).uniform(0, 90, (100, len(names))).astype(np.float32)
    model = FakeModel(version=ref.version)
    profile = build_profile(sample, names, model.predict(sample))
    return SimpleNamespace(
        backend=model,
        profile=profile,
        input_schema=InputSchema(features=()),
        statement=SimpleNamespace(reference_profile_sha256=profile.sha256()),
    )


def serve(features: str, control: str, home: Path, limits: dict[str, Any], full_rows: int, shared: Shared) -> None:
    """Serve until killed: the parts of a replica, Serve's HTTP server, the hook."""
    assembly = Assembly(
        "toy",
        home=home,
        service=service,
        terms=terms(**limits),
        rules=rules,
        drivers=Drivers(
            store=RedisControlStore(control),
            channel=RedisCountsChannel(control),
            reader=OnlineReader(service, features, timeout_s=BUDGET_S),
            verifier=FakeVerifier(principal("alice", "decide:toy", "outcomes:toy")),
            load=load,
            clock=ShiftedClock(shared.shift),
        ),
        replica="r",
        objectives=Objectives(p95_s=0.02, p99_s=0.05, availability=0.999),
    )
    assembly.recorder.spool._full_rows = full_rows
    assembly.host.start()

    async def nobody(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(f"passed on: {scope['path']}")

    async def work() -> None:
        await assembly.start()
        register("/toy", assembly.gateway, asyncio.get_running_loop())
        open_lanes("/toy", assembly.service, asyncio.get_running_loop())
        config = uvicorn.Config(HotPath(nobody), port=0, log_level="critical", lifespan="off", http=CONNECTION)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        shared.port.value = server.servers[0].sockets[0].getsockname()[1]
        while not serving.done():
            assembly.require_alive()
            shared.dropped.value = assembly.recorder.spool.dropped
            await asyncio.sleep(0.05)

    asyncio.run(work())


class Served:
    """The process, its servers and its callers."""

    def __init__(self, features: Valkey, control: Valkey, home: Path, **limits: Any) -> None:
        self.features, self.control, self.home = features, control, home
        self.features_url = str(limits.pop("features_url", features.url))
        self.full_rows = int(limits.pop("full_rows", 200_000))
        self._limits = {"deadline_s": 0.1, "burst": 1_000_000} | limits
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self.shared = Shared(self._context)
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        ref = VersionRef(version="7", path="/models/7", statement_sha256="0" * 64)
        store = RedisControlStore(self.control.url)
        promote(store, "toy", ref, reason="test", by="test", now=SystemClock().now())
        self.fill()
        self._process = self._context.Process(
            target=serve,
            args=(self.features_url, self.control.url, self.home, self._limits, self.full_rows, self.shared),
        )
        self._process.start()
        until(lambda: bool(self.shared.port.value))
        until(lambda: self.raw(body(20.0))[0] == 200)

    def fill(self) -> None:
        """Put into the online store what a stream would."""
        now, ids = SystemClock().now(), np.arange(_CUSTOMERS)
        sales = pa.table(
            {
                "sale_id": ids, "customer_id": ids, "shop": [str(i) for i in ids], "amount": ids.astype(np.float32),
                "event_time": np.full(_CUSTOMERS, now - MINUTE), "known_time": np.full(_CUSTOMERS, now - MINUTE),
            }
        )  # fmt: skip
        store = OnlineStore(self.features.url)
        for view in (activity, shops):
            store.write(view, sales)
            store.set_watermark(view, now + HOUR)
        store.close()

    def whole(self) -> bool:
        """Tell whether a request is answered by the model, with nothing degraded."""
        status, _, said = self.raw(body(20.0))
        if status != 200:
            return False
        (one,) = json.loads(said)["decisions"]
        return bool(one["arm"] == "champion" and not one["degraded"])

    def kill(self) -> None:
        """End it; it must not have ended by itself."""
        assert self._process is not None
        alive = self._process.is_alive()
        self._process.kill()
        self._process.join()
        assert alive, "the server died"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.shared.port.value}/toy"

    @property
    def memory(self) -> int:
        """Its resident bytes."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def callers(self, rate: float = 100.0, amounts: tuple[float, ...] = (20.0,), **more: Any) -> Callers:
        """Return callers of one decision each."""
        bodies = [body(amount, customer) for customer in range(_CUSTOMERS) for amount in amounts]
        return Callers(f"{self.url}/v1/decisions", bodies, "alice", rate=rate, **more)

    def connect(self) -> socket.socket:
        """Return a plain connection."""
        return socket.create_connection(("127.0.0.1", self.shared.port.value), timeout=20)

    def head(self, *lines: str, path: str = "/v1/decisions") -> bytes:
        """Return a request up to its body."""
        fixed = (f"POST /toy{path} HTTP/1.1", "host: x", "authorization: Bearer alice")
        return "\r\n".join([*fixed, *lines, "", ""]).encode()

    def raw(self, data: bytes, path: str = "/v1/decisions") -> tuple[int, dict[str, str], bytes]:
        """Send one request on a connection of its own; return status, headers and body."""
        with self.connect() as connection:
            connection.sendall(self.head(f"content-length: {len(data)}", "connection: close", path=path) + data)
            return answer(connection)


def body(amount: float, customer: int = 1) -> bytes:
    """Return a request for one decision."""
    return json.dumps({"rows": [{"customer_id": customer, "shop": str(customer), "amount": amount}]}).encode()


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read until the server closes; return status, headers and body of the first answer, status 0 where none came."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    head, _, rest = b"".join(parts).partition(b"\r\n\r\n")
    if not head:
        return 0, {}, b""
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), rest


@contextmanager
def servers(**limits: Any) -> Iterator[Served]:
    """Start feature store, control store and the process."""
    folder = Path(tempfile.mkdtemp(prefix="fs"))
    home = Path(limits.pop("home", folder / "home"))
    features, control = (Valkey(folder / name, *options) for name, options in (("f", ()), ("c", DURABLE)))
    try:
        for server, name in ((features, "f"), (control, "c")):
            (folder / name).mkdir()
            server.start()
        served = Served(features, control, home, **limits)
        served.start()
        try:
            yield served
        finally:
            served.kill()
    finally:
        features.kill()
        control.kill()
        shutil.rmtree(folder)


class SlowWay:
    """A way to a Redis server on which every reply takes longer, while `delay_s` is above 0."""

    def __init__(self, target: str) -> None:
        self._target = target.removeprefix("unix://")
        self.delay_s = 0.0
        self._folder = Path(tempfile.mkdtemp(prefix="sw"))
        self.url = f"unix://{self._folder}/s"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> SlowWay:
        self._thread.start()
        until((self._folder / "s").exists)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        shutil.rmtree(self._folder)

    async def _run(self) -> None:
        server = await asyncio.start_unix_server(self._joined, self._folder / "s")
        while not self._stop.is_set():
            await asyncio.sleep(0.05)
        server.close()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        await asyncio.gather(self._pass(reader, back, slow=False), self._pass(there, writer, slow=True))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if slow and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()


def wait_s(seconds: float) -> float:
    """Let the callers go on for a while; return when that was over."""
    time.sleep(seconds)
    return time.monotonic()
