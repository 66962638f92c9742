"""The gate before an application that answers everything: what reaches it, and what is recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.clock import ManualClock
from headway.core.errors import PlatformError, Unauthenticated, Unavailable
from headway.core.types import Principal
from headway.governance.audit import MemoryAudit
from headway.governance.mlflow_gate import MlflowGate
from headway.governance.mlflow_routes import MAX_BODY, find, plain_path, routes
from tests.governance.conftest import NOW

SCOPES = ("registry:read", "registry:write", "registry:review", "registry:approve", "decide:fraud")
CREATE = "/api/2.0/mlflow/registered-models/create"
UPLOAD = "/api/2.0/mlflow-artifacts/artifacts/1/r/artifacts/model/model.json"
SEARCH = "/api/2.0/mlflow/experiments/search"


class World:
    """A gate, the application behind it, and callers whose token says who they are."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.audit = MemoryAudit(self.clock)
        self.reached: list[tuple[str, str, dict[bytes, bytes], bytes]] = []
        self.status = 200
        self.error: Exception | None = None
        self.gate = MlflowGate(self.app, verify=self.verify, audit=self.audit, clock=self.clock)

    def verify(self, token: str) -> Principal:
        """`kind scope scope …` is a token."""
        kind, *scopes = token.split(" ")
        if kind == "away":
            raise Unavailable("no keys of the issuer", retry_after_s=1.0)
        if kind not in ("human", "ci", "workload"):
            raise Unauthenticated("the token is refused")
        return Principal(sub=f"a {kind}", kind=kind, scopes=frozenset(scopes), purpose="tests", expires=NOW + 1)

    async def app(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.reached.append((scope["method"], scope["path"], dict(scope["headers"]), body))
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"inner"})

    def ask(
        self, method: str, path: str, token: str | None = "ci registry:read registry:write", *chunks: bytes, **more: Any
    ) -> tuple[int, bytes]:
        """Return status and body; `raw` and `root` replace what a server would make of the path."""
        headers = [(b"host", b"here"), *more.get("headers", [])]
        if token is not None:
            headers.append((b"authorization", b"Bearer " + token.encode()))
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": more.get("raw", path.encode()),
            "root_path": more.get("root", ""),
            "headers": headers,
        }
        waiting = list(chunks) or [b""]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if not waiting:
                return {"type": "http.disconnect"}
            chunk = waiting.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.gate(scope, receive, send))
        return int(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent[1:])

    def outcomes(self) -> list[tuple[str, str, str]]:
        return [(event.actor, event.action, event.outcome) for event in self.audit.events]


@pytest.fixture
def world() -> World:
    return World()


def test_a_write_is_recorded_before_and_after_and_names_what_it_is_about(world: World) -> None:
    body = json.dumps({"name": "fraud", "tags": [], "key": "a\nb"}).encode()
    assert world.ask("POST", CREATE, "ci registry:write", body) == (200, b"inner")
    assert world.reached[0][3] == body
    assert world.outcomes() == [
        ("a ci", "mlflow.registered-models/create", "intended"),
        ("a ci", "mlflow.registered-models/create", "done"),
    ]
    assert world.audit.events[0].resource == f"mlflow:{CREATE} name=fraud key=a?b"
    world.status = 409
    assert world.ask("POST", CREATE, "workload registry:write", body)[0] == 409
    assert world.outcomes()[-1] == ("a workload", "mlflow.registered-models/create", "failed: status 409")
    world.error = RuntimeError("broken")
    with pytest.raises(RuntimeError):
        world.ask("POST", CREATE, "ci registry:write", body)
    assert world.outcomes()[-1][2] == "failed: RuntimeError"


def test_what_cannot_be_recorded_is_not_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise PlatformError("the audit log cannot be written")

    monkeypatch.setattr(world.audit, "append", full)
    assert world.ask("POST", CREATE)[0] == 503
    assert world.reached == []
    assert world.ask("POST", CREATE, "human registry:write")[0] == 503
    assert world.ask("GET", SEARCH)[0] == 200, "reading goes on"


def test_an_outcome_that_cannot_be_recorded_is_not_answered_with_success(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = world.audit.append

    def full_later(**event: Any) -> Any:
        if event["outcome"] != "intended":
            raise PlatformError("the audit log cannot be written")
        return real(**event)

    monkeypatch.setattr(world.audit, "append", full_later)
    assert world.ask("POST", CREATE)[0] == 503
    assert len(world.reached) == 1


@pytest.mark.parametrize(
    ("token", "method", "path", "status"),
    [
        (None, "GET", SEARCH, 401),
        ("nobody", "GET", SEARCH, 401),
        ("away", "GET", SEARCH, 503),
        ("human", "GET", SEARCH, 403),
        ("human registry:write", "GET", SEARCH, 403),
        ("human registry:read", "GET", SEARCH, 200),
        ("human registry:read registry:write", "POST", CREATE, 403),
        ("ci registry:read", "POST", CREATE, 403),
        ("ci registry:write", "POST", CREATE, 200),
        ("ci registry:write", "DELETE", CREATE, 403),
        ("ci registry:write", "POST", "/graphql", 403),
        (None, "POST", "/graphql", 401),
        (None, "GET", "/health", 200),
        (None, "POST", "/health", 401),
        ("workload registry:write", "PUT", UPLOAD, 200),
        ("workload registry:write", "PUT", UPLOAD.replace("/api/", "/ajax-api/"), 403),
        ("human registry:read", "GET", UPLOAD, 200),
    ],
)
def test_who_may_do_what(world: World, token: str | None, method: str, path: str, status: int) -> None:
    answered, body = world.ask(method, path, token)
    assert answered == status
    assert bool(world.reached) == (status == 200)
    if status != 200:
        assert {"error", "code", "request_id", "error_code", "message"} == set(json.loads(body))
        assert world.outcomes()[-1][2].startswith("denied")
        assert len(world.audit.events) == 1


def test_the_application_sees_no_identity(world: World) -> None:
    world.ask("POST", CREATE, headers=[(b"cookie", b"session=1"), (b"accept", b"*/*")])
    assert set(world.reached[0][2]) == {b"host", b"accept"}


def test_bodies_are_bounded_whatever_they_announce(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.ask("POST", CREATE, "ci registry:write", *[b"x" * 2**18] * 4)[0] == 200
    assert world.ask("POST", CREATE, "ci registry:write", *[b"x" * 2**18] * 4, b"x")[0] == 413
    announced = [(b"content-length", str(MAX_BODY + 1).encode())]
    assert world.ask("POST", CREATE, "ci registry:write", headers=announced)[0] == 413
    assert world.ask("POST", CREATE, "ci registry:write", headers=[(b"content-length", b"-1")])[0] == 413
    assert len(world.reached) == 1
    monkeypatch.setattr("headway.governance.mlflow_routes.MAX_UPLOAD", 100)
    assert world.ask("PUT", UPLOAD, "ci registry:write", b"x" * 60, b"x" * 40)[0] == 200
    assert world.ask("PUT", UPLOAD, "ci registry:write", b"x" * 60, b"x" * 41)[0] == 413
    assert world.outcomes()[-1][2] == "failed: too large"


def test_a_flood_of_strangers_is_counted_not_written(world: World) -> None:
    for _ in range(500):
        assert world.ask("GET", SEARCH, None)[0] == 401
    assert len(world.audit.events) == 60
    world.clock.advance(60_000_000)
    world.ask("GET", SEARCH, None)
    assert world.outcomes()[-1][2].endswith("(440 more were not recorded)")
    for _ in range(70):
        world.ask("POST", CREATE, "human registry:read")
    assert len(world.audit.events) == 131, "whoever is known is recorded each time"


def test_other_protocols_are_closed(world: World) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(world.gate({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]  # never asked
    assert sent == [{"type": "websocket.close", "code": 1008}]


PIECES = st.sampled_from(
    [
        *"abz09/.%;\\ ~",
        "//",
        "/./",
        "/../",
        "%2f",
        "%2e",
        "%00",
        "..",
        "api",
        "2.0",
        "mlflow",
        "registered-models",
        "create",
    ]
)


@given(
    path=st.one_of(
        st.lists(PIECES, max_size=12).map(lambda parts: "/" + "".join(parts)),
        st.tuples(st.integers(0, len(CREATE)), PIECES).map(lambda at: CREATE[: at[0]] + at[1] + CREATE[at[0] :]),
        st.text(max_size=60).map(lambda text: "/" + text),
    ),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "post", ""]),
    raw=st.sampled_from([None, b"", b"/health", CREATE.encode()]),
    root=st.sampled_from(["", "/api"]),
)
def test_only_a_listed_route_in_its_one_spelling_reaches_the_application(
    path: str, method: str, raw: bytes | None, root: str
) -> None:
    world = World()
    spelled = path.encode("utf-8", "surrogateescape") if raw is None else raw
    listed = any(method in route.methods and route.path.fullmatch(path) for route in routes())
    world.ask(method, path, raw=spelled, root=root)
    reached = bool(world.reached)
    assert reached == (listed and spelled == path.encode("utf-8", "surrogateescape") and not root)
    if reached:
        assert "%" not in path
        assert "//" not in path
        assert ".." not in path.split("/")
        assert path == "/" or not path.endswith("/")


def test_the_list_writes_nothing_for_browsers_and_deletes_nothing() -> None:
    listed = routes()
    assert all("DELETE" not in route.methods for route in listed)
    writing = [route for route in listed if route.right == "write"]
    assert len(writing) > 15
    for route in writing:
        assert find(listed, "POST", route.path.pattern.replace("\\", "").replace("/api", "/ajax-api", 1)) is None
    assert [route.name for route in listed if route.right == "open"] == ["health"]


@pytest.mark.parametrize("path", ["/a/../b", "/a//b", "/a/", "/.a", "/a%20b", "/a b", "/é", "a", "", "/a\n", "/a/."])
def test_a_path_with_two_spellings_is_none(path: str) -> None:
    assert plain_path(path, path.encode(), "") is None


@pytest.mark.parametrize("path", ["/", "/health", UPLOAD])
def test_a_plain_path_is_kept(path: str) -> None:
    assert plain_path(path, path.encode(), "") == path
