from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headway.core.errors import DefinitionError, Unavailable
from headway.features.link import RedisLink, request
from tests.features.valkey import Valkey, serving

PING = request([b"PING"])
LONG_S = 60.0


def certificate(folder: Path) -> Path:
    """Write a key and a certificate of 127.0.0.1 that signs itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "store.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


class Recorder:
    """A server that keeps what it is sent, says yes to every command, and hangs up on anything else."""

    def __init__(self) -> None:
        self.seen = b""
        self.port = 0
        self.calls: list[asyncio.Task[Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.calls.append(task)
        while data := await reader.read(1 << 16):
            self.seen += data
            if not data.startswith(b"*"):
                break
            writer.write(b"+OK\r\n" * (data.count(b"\n*") + 1))
        writer.close()


@asynccontextmanager
async def recording(tls: ssl.SSLContext | None = None) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0, ssl=tls)
    recorder.port = server.sockets[0].getsockname()[1]
    async with server:
        yield recorder
        await asyncio.gather(*recorder.calls)


async def ask(url: str, data: bytes = PING, *, timeout_s: float = LONG_S) -> Any:
    link = RedisLink(url, timeout_s=timeout_s)
    try:
        return await link.call(data)
    finally:
        await link.close()


def test_a_password_goes_to_rediss_over_tls_only(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(path)

    async def main() -> None:
        async with recording(server_side) as store:
            url = f"rediss://:secret@127.0.0.1:{store.port}"
            assert await ask(f"{url}?ssl_ca_certs={path}") == b"OK"
            assert store.seen == request([b"AUTH", b"default", b"secret"]) + PING
            with pytest.raises(Unavailable, match="certificate verify failed"):
                await ask(url)
            assert await ask(f"{url}?ssl_cert_reqs=none") == b"OK"
        async with recording() as plain:
            with pytest.raises(Unavailable):
                await ask(f"rediss://:secret@127.0.0.1:{plain.port}")
            assert plain.seen
            assert b"secret" not in plain.seen

    asyncio.run(main())


@pytest.mark.parametrize(
    ("address", "greeting"),
    [
        ("redis://127.0.0.1:{port}", []),
        ("redis://127.0.0.1:{port}/0", []),
        ("redis://127.0.0.1:{port}/3", [[b"SELECT", b"3"]]),
        ("redis://127.0.0.1:{port}?db=4", [[b"SELECT", b"4"]]),
        ("redis://127.0.0.1:{port}/3?db=4", [[b"SELECT", b"4"]]),
        ("redis://127.0.0.1:{port}/feature-store", []),
        ("redis://bob:p%40ss@127.0.0.1:{port}/2", [[b"AUTH", b"bob", b"p@ss"], [b"SELECT", b"2"]]),
    ],
)
def test_an_address_means_what_it_means_to_redis_py(address: str, greeting: list[list[bytes]]) -> None:
    async def main() -> None:
        async with recording() as store:
            await ask(address.format(port=store.port))
            assert store.seen == b"".join(request(parts) for parts in greeting) + PING

    asyncio.run(main())


def test_a_socket_has_its_database_in_the_query() -> None:
    with serving() as server:
        url = f"{server.url}?db=3"
        with redis.Redis.from_url(url) as client:
            client.set("name", "three")
        assert asyncio.run(ask(url, request([b"GET", b"name"]))) == b"three"


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:6379",
        "http://:secret@127.0.0.1",
        "rediss+x://:secret@127.0.0.1",
        "redis://:secret@127.0.0.1?db=x",
        "redis://bob:sec/ret@127.0.0.1",
        "rediss://:secret@127.0.0.1?ssl_ciphers=ALL",
        "rediss://:secret@127.0.0.1?ssl_cert_reqs=maybe",
        "rediss://:secret@127.0.0.1?ssl_ca_certs=/nowhere.pem",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(DefinitionError, match="redis_features_url") as caught:
        RedisLink(url)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["bob:wrong@{path}", "bob:right@{path}?db=99"])
def test_a_refused_login_leaves_no_connection(wrong: str) -> None:
    with serving() as server, redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "bob", "on", ">right", "~*", "+@all")
        url = "unix://" + wrong.format(path=server.url.removeprefix("unix://"))
        asyncio.run(_refused(url, server, client))


async def _refused(url: str, server: Valkey, client: redis.Redis) -> None:
    link = RedisLink(url, timeout_s=LONG_S)
    for _ in range(5):
        with pytest.raises(Unavailable, match="refused"):
            await link.call(PING)
    deadline = asyncio.get_running_loop().time() + LONG_S
    while len(client.client_list()) > 1:
        assert asyncio.get_running_loop().time() < deadline, "connections stay open"
        await asyncio.sleep(0.01)
    assert await ask(server.url) == b"PONG"
