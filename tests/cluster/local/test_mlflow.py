"""The MLflow server as `headway up` starts it, attacked with MLflow's own client and with raw sockets."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway.cluster.local.service import Context, answers_http
from headway.cluster.local.services.mlflow import MlflowService
from headway.core.clock import SystemClock
from headway.core.errors import NotFound, PlatformError
from headway.core.platform_state import PlatformState
from headway.core.settings import Settings, load_settings
from headway.core.times import DAY
from headway.core.types import Principal
from headway.governance.audit import MemoryAudit, verify_chains
from headway.governance.audit_event import AuditEvent, parse_event
from headway.governance.issuing import development_issuer
from headway.governance.keys import MODEL_SIGN, development_keys, signer_for, trust_root
from headway.governance.mlflow_routes import MAX_BODY, MAX_UPLOAD
from headway.governance.registry import Registry, registry_from
from headway.governance.statement import sign_version, verify_version
from tests.governance.conftest import fields as statement_fields

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
ALL = ("registry:read", "registry:write", "registry:review", "registry:approve")


@dataclass
class Served:
    """A running server, an issuer of tokens for it, and its audit chain."""

    settings: Settings
    port: int
    tokens: dict[tuple[str, str, tuple[str, ...]], str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, kind: str, *scopes: str, sub: str = "ann") -> str:
        key = (kind, sub, scopes)
        if key not in self.tokens:
            issuer = development_issuer(self.settings.home, SystemClock())
            self.tokens[key] = issuer.issue(sub, kind, scopes, "tests")
        return self.tokens[key]

    def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        headers |= options.pop("headers", {})
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=60, **options)

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are: clients tidy up paths and methods before they send them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)
            answer = bytearray()
            while chunk := connection.recv(65_536):
                answer += chunk
                head, _, body = bytes(answer).partition(b"\r\n\r\n")
                for line in head.lower().splitlines():
                    if line.startswith(b"content-length:") and len(body) >= int(line.split(b":")[1]):
                        return bytes(answer)
            return bytes(answer)

    def events(self) -> list[AuditEvent]:
        path = self.settings.home / "audit" / "mlflow.jsonl"
        return [parse_event(line, where=path.name) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("gate") / "home"
    home.mkdir()
    development_keys(home, [])
    development_issuer(home, SystemClock())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = load_settings(
        home=home, mlflow_uri=f"http://127.0.0.1:{port}", mlflow_database=f"sqlite:///{home}/mlflow/mlflow.db"
    )
    service = MlflowService()
    state = PlatformState(home=str(home), ports={"mlflow": port}, ray_temp=str(home))
    context = Context(settings=settings, state=state)
    service.prepare(context)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            service.command(context), env={**os.environ, **service.environment(context)}, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 120
        while not service.healthy(context):
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.2)
        yield Served(settings=settings, port=port)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def client(served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Make MLflow's own client, with a token given as MLflow's users give it."""
    from mlflow.tracking import MlflowClient

    def make(token: str) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        return MlflowClient(tracking_uri=served.url, registry_uri=served.url)

    return make


@pytest.fixture
def registry(served: Served) -> Registry:
    def tokens(principal: Principal, verb: str) -> str:
        scopes = ("registry:read",) if verb == "read" else ("registry:read", "registry:write")
        return served.token(principal.kind, *scopes, sub=principal.sub)

    return registry_from(served.settings, MemoryAudit(SystemClock()), SystemClock(), tokens)


def identity(kind: str) -> Principal:
    expires = SystemClock().now() + DAY
    return Principal(sub="robot", kind=kind, scopes=frozenset(ALL), purpose="tests", expires=expires)


def test_our_registry_writes_as_a_program_and_fetches_files_that_verify(
    served: Served, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "version"
    (folder / "tables").mkdir(parents=True)
    (folder / "model.json").write_bytes(b'{"trees": []}')
    (folder / "tables" / "profile.json").write_bytes(b"{}")
    (folder / "empty.json").write_bytes(b"")
    described = statement_fields.__wrapped__()  # type: ignore[attr-defined]  # the function behind the fixture
    clock, robot = SystemClock(), identity("ci")
    described |= {"created": clock.now(), "expires": clock.now() + DAY}

    def sign(run_id: str, number: str) -> None:
        signer = signer_for(served.settings, MODEL_SIGN)
        sign_version(folder, {**described, "version": number, "run_id": run_id}, signer)

    values: dict[str, Any] = {"metrics": {"roc_auc": 0.9}, "params": {"rounds": 50}, "tags": {"use_case": "fraud"}}
    found = registry.register("fraud", folder, principal=robot, sign=sign, **values)
    assert found.path == served.settings.home / "models" / "fraud" / found.version
    verify_version(found.path, trust_root(served.settings), name="fraud", version=found.version, clock=clock)
    registry.alias("fraud", "champion", found.version, robot)
    assert registry.resolve("fraud", "champion", identity("human")).path == found.path
    with pytest.raises(NotFound):
        registry.resolve("fraud", "previous", robot)
    with pytest.raises(NotFound):
        registry.resolve("churn", "1", robot)
    with pytest.raises(PlatformError, match="no folder"):
        Registry(served.url, MemoryAudit(), clock, tokens=lambda *_: served.token("ci", *ALL)).resolve(
            "fraud", "champion", robot
        )
    written = [event for event in served.events() if event.actor == "robot"]
    done = {event.action for event in written if event.outcome == "done"}
    assert {"mlflow.model-versions/create", "mlflow.artifacts/{path}", "mlflow.registered-models/alias"} <= done
    assert any(
        event.resource.endswith(f"model-versions/set-tag name=fraud version={found.version} key=headway.state")
        for event in written
    )
    meant = [event for event in written if event.outcome == "intended"]
    assert len(meant) == len([event for event in written if event.outcome == "done"])
    assert capsys.readouterr() == ("", "")


def test_a_person_reads_with_the_raw_client_and_writes_nothing(
    served: Served, client: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    robot = client(served.token("ci", *ALL, sub="pipeline"))
    experiment = robot.create_experiment("people")
    run = robot.create_run(experiment)
    robot.log_param(run.info.run_id, "rounds", 1)
    (tmp_path / "model.json").write_text('{"trees": []}')
    robot.log_artifact(run.info.run_id, str(tmp_path / "model.json"), "model")
    robot.create_registered_model("people")
    source = f"{run.info.artifact_uri}/model"
    robot.create_model_version("people", source, run.info.run_id)
    robot.set_registered_model_alias("people", "champion", "1")

    person = client(served.token("human", *ALL))
    assert str(person.get_model_version_by_alias("people", "champion").version) == "1"
    assert [item.name for item in person.search_registered_models() if item.name == "people"] == ["people"]
    assert [str(item.version) for item in person.search_model_versions("name = 'people'")] == ["1"]
    assert person.get_run(run.info.run_id).data.params == {"rounds": "1"}
    assert [item.info.run_id for item in person.search_runs([experiment])] == [run.info.run_id]
    assert [item.path for item in person.list_artifacts(run.info.run_id, "model")] == ["model/model.json"]
    fetched = person.download_artifacts(run.info.run_id, "model/model.json", str(tmp_path))
    assert Path(fetched).read_text() == '{"trees": []}'

    before = len(served.events())
    run_id = run.info.run_id

    def log_model() -> None:
        class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is not typed here
            def predict(self, context: Any, model_input: list[str]) -> list[str]:
                return model_input

        mlflow.set_tracking_uri(served.url)
        with mlflow.start_run(run_id=run_id):
            mlflow.pyfunc.log_model(name="sneaked", python_model=Model(), pip_requirements=[])

    (tmp_path / "big.bin").write_bytes(os.urandom(3 * 2**20))
    acts: dict[str, Callable[[], object]] = {
        "create a model": lambda: person.create_registered_model("sneaked"),
        "create a version": lambda: person.create_model_version("people", source, run_id),
        "set an alias": lambda: person.set_registered_model_alias("people", "champion", "1"),
        "delete an alias": lambda: person.delete_registered_model_alias("people", "champion"),
        "set a tag": lambda: person.set_model_version_tag("people", "1", "headway.environment", "production"),
        "set a model tag": lambda: person.set_registered_model_tag("people", "k", "v"),
        "delete a tag": lambda: person.delete_model_version_tag("people", "1", "k"),
        "move a stage": lambda: person.transition_model_version_stage("people", "1", "Production"),
        "describe a version": lambda: person.update_model_version("people", "1", "good"),
        "rename a model": lambda: person.rename_registered_model("people", "other"),
        "delete a version": lambda: person.delete_model_version("people", "1"),
        "delete a model": lambda: person.delete_registered_model("people"),
        "create an experiment": lambda: person.create_experiment("sneaked"),
        "delete an experiment": lambda: person.delete_experiment(experiment),
        "create a run": lambda: person.create_run(experiment),
        "log a metric": lambda: person.log_metric(run_id, "auc", 1.0),
        "tag a run": lambda: person.set_tag(run_id, "k", "v"),
        "delete a run": lambda: person.delete_run(run_id),
        "upload an artefact": lambda: person.log_artifact(run_id, str(tmp_path / "model.json"), "model"),
        "upload a large artefact": lambda: person.log_artifact(run_id, str(tmp_path / "big.bin"), "model"),
        "log a model": log_model,
    }
    for what, act in acts.items():
        with pytest.raises((MlflowException, OSError)) as caught:
            act()
        assert "403" in str(caught.value) or "PERMISSION_DENIED" in str(caught.value), what
    mlflow.set_tracking_uri(None)
    denied = served.events()[before:]
    assert len(denied) >= len(acts)
    assert {(event.actor, event.kind) for event in denied} == {("ann", "human")}
    assert all(event.outcome.startswith("denied: ") for event in denied)
    person = client(served.token("human", *ALL))
    assert [str(item.version) for item in person.search_model_versions("name = 'people'")] == ["1"]
    assert person.get_model_version("people", "1").tags == {}


def test_a_program_neither_deletes_nor_renames(served: Served, client: Callable[[str], Any]) -> None:
    from mlflow.exceptions import MlflowException

    robot = client(served.token("ci", *ALL))
    robot.create_registered_model("kept")
    acts: tuple[Callable[[], object], ...] = (
        lambda: robot.delete_registered_model("kept"),
        lambda: robot.rename_registered_model("kept", "other"),
    )
    for act in acts:
        with pytest.raises(MlflowException, match="PERMISSION_DENIED"):
            act()
    assert robot.get_registered_model("kept").name == "kept"


def test_without_an_identity_only_health_answers(served: Served) -> None:
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert served.ask("GET", "/health").text == "OK"
    bearers = {
        "none": None,
        "garbage": "x.y.z",
        "no right": served.token("human", "decide:fraud"),
        "a program without the right": served.token("ci", "registry:write"),
    }
    statuses = {name: served.ask("GET", search, token).status_code for name, token in bearers.items()}
    assert statuses == {"none": 401, "garbage": 401, "no right": 403, "a program without the right": 403}
    refused = served.ask("GET", search)
    assert refused.json()["code"] == "unauthenticated"
    assert refused.json()["error_code"] == "UNAUTHENTICATED"
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert "Basic" in refused.headers["www-authenticate"]
    twice = [("authorization", f"Bearer {served.token('human', *ALL)}")] * 2
    assert httpx.get(f"{served.url}{search}", headers=twice).status_code == 401


def test_a_browser_reads_with_the_token_as_password(served: Served) -> None:
    def basic(token: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(f"ann:{token}".encode()).decode()}

    page = served.ask("GET", "/", headers=basic(served.token("human", "registry:read")))
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    script = page.text.split('src="')[1].split('"')[0].lstrip("/")
    assert served.ask("GET", f"/{script}", headers=basic(served.token("human", "registry:read"))).status_code == 200
    created = served.ask(
        "POST",
        "/api/2.0/mlflow/registered-models/create",
        headers=basic(served.token("ci", *ALL)),
        json={"name": "by_browser"},
    )
    assert created.status_code == 403


CREATE = "/api/2.0/mlflow/registered-models/create"
CLOSED = [
    ("POST", "/graphql"),
    ("POST", "/api/3.0/mlflow/traces"),
    ("POST", "/v1/traces"),
    ("POST", "/gateway/any/mlflow/invocations"),
    ("GET", "/ajax-api/2.0/mlflow/gateway-proxy"),
    ("POST", "/ajax-api/3.0/mlflow/jobs/"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact"),
    ("POST", "/ajax-api/2.0/mlflow/registered-models/create"),
    ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("POST", "/api/3.0/mlflow/scorers/register"),
    ("POST", "/api/3.0/mlflow/gateway/secrets/create"),
    ("GET", "/api/3.0/mlflow/gateway/secrets/list"),
    ("POST", "/api/2.0/mlflow/webhooks"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("DELETE", "/api/2.0/mlflow/registered-models/delete"),
    ("POST", "/api/2.0/mlflow/experiments/delete"),
    ("GET", "/api/2.0/preview/mlflow/experiments/search"),
    ("GET", "/api/2.0/mlflow/nothing"),
]
TRICKS = [
    ("POST", f"/{CREATE}"),
    ("POST", CREATE.replace("/mlflow", "//mlflow")),
    ("POST", f"{CREATE}/"),
    ("POST", CREATE.replace("/create", "/./create")),
    ("POST", CREATE.replace("/create", "/x/../create")),
    ("POST", CREATE.replace("create", "%63reate")),
    ("POST", CREATE.replace("/create", "%2fcreate")),
    ("POST", CREATE.replace("create", "Create")),
    ("POST", f"{CREATE};x=1"),
    ("POST", f"{CREATE}%00"),
    ("POST", f"/static-files/../{CREATE.lstrip('/')}"),
    ("POST", "/health"),
    ("POST", "/health/../api/2.0/mlflow/registered-models/create"),
    ("POST", "http://127.0.0.1/api/2.0/mlflow/registered-models/create/"),
    ("post", CREATE),
    ("HEAD", "/api/2.0/mlflow/experiments/search"),
    ("OPTIONS", CREATE),
    ("TRACE", CREATE),
    ("GET", CREATE),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/../../secret"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/%2e%2e/mlflow.db"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts//etc/passwd"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/.hidden"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_is_not_listed_is_refused_even_to_ci(served: Served, method: str, path: str) -> None:
    answer = served.ask(method, path, served.token("ci", *ALL))
    assert answer.status_code == 403, answer.text
    assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("kind", ["human", "ci"])
def test_tricks_with_paths_and_methods_reach_nothing(served: Served, kind: str) -> None:
    body = json.dumps({"name": "tricked"}).encode()
    for method, path in TRICKS:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{served.port}\r\n"
            f"authorization: Bearer {served.token(kind, *ALL)}\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        status = int(served.raw(head.encode() + body).split()[1])
        assert status in (400, 403), (method, path, status)
    for header in ("x-http-method-override", "X-HTTP-Method", "x-method-override"):
        answer = served.ask(
            "GET",
            "/api/2.0/mlflow/experiments/search?max_results=1",
            served.token(kind, *ALL),
            headers={header: "POST"},
        )
        assert answer.status_code == 403
    found = served.ask(
        "GET", "/api/2.0/mlflow/registered-models/get?name=tricked", served.token("human", "registry:read")
    )
    assert found.status_code == 404


def test_a_websocket_and_a_foreign_host_are_turned_away(served: Served) -> None:
    upgrade = (
        f"GET /graphql HTTP/1.1\r\nhost: 127.0.0.1:{served.port}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"authorization: Bearer {served.token('ci', *ALL)}\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert int(served.raw(upgrade.encode()).split()[1]) == 403
    rebound = served.ask(
        "GET",
        "/api/2.0/mlflow/experiments/search?max_results=1",
        served.token("human", *ALL),
        headers={"host": "attacker.example"},
    )
    assert rebound.status_code == 403


def test_bodies_are_bounded(served: Served) -> None:
    token = served.token("ci", *ALL)
    large = json.dumps({"name": "bulky", "description": "x" * MAX_BODY})
    announced = served.ask("POST", CREATE, token, content=large)
    assert (announced.status_code, announced.json()["code"]) == (413, "too_large")
    pieces = (large[at : at + 65_536].encode() for at in range(0, len(large), 65_536))
    assert served.ask("POST", CREATE, token, content=pieces).status_code == 413
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.putrequest("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/huge")
    connection.putheader("authorization", f"Bearer {token}")
    connection.putheader("content-length", str(MAX_UPLOAD + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    found = served.ask("GET", "/api/2.0/mlflow/registered-models/get?name=bulky", token)
    assert found.status_code == 404


def test_the_chain_of_the_server_holds_and_keeps_no_token(served: Served) -> None:
    assert answers_http(served.port, "/health")
    reports = verify_chains(served.settings.home / "audit")
    assert reports.ok, reports.problems
    said = (served.settings.home / "audit" / "mlflow.jsonl").read_text() + (served.settings.home / "log").read_text()
    assert served.tokens
    assert not [token for token in served.tokens.values() if token in said]
