"""Nothing is deployed that is not as signed; what serves goes on; and every governed act can be proved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from headway.core.control import RedisControlStore
from headway.core.routing import read_routing
from tests.acceptance.platform import BODY, Platform


@contextmanager
def altered(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Change a file for a while."""
    kept = path.read_bytes()
    mode = path.stat().st_mode
    changed = change(kept)
    assert changed != kept
    path.chmod(0o644)
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(kept)
        path.chmod(mode)


@pytest.fixture
def contract(platform: Platform) -> Path:
    return platform.project / "serve_apps" / "churn" / "contract.yaml"


@pytest.fixture
def champion(platform: Platform) -> Path:
    """The folder of the version that serves."""
    store = RedisControlStore(platform.state.redis_control_url)
    ref = read_routing(store, "churn").champion
    assert ref is not None
    return Path(ref.path)


def refuse(platform: Platform, http: httpx.Client) -> str:
    """Deploy in vain: refused as evidence that does not hold, audited, and the old replicas answer; return why."""
    replicas, before = platform.replicas(), len(platform.audited("deploy"))
    said = platform.headway("deploy", "churn", code=5).stderr
    events = platform.audited("deploy")[before:]
    assert [(event["resource"], event["outcome"]) for event in events] == [("churn", "denied")]
    assert http.post("/v1/decisions", json=BODY).status_code == 200
    assert platform.replicas() == replicas
    return said


def test_a_tampered_artefact_is_not_deployed(platform: Platform, champion: Path, authorised: httpx.Client) -> None:
    platform.headway("login", "--user", "tester")
    files = sorted(path for path in champion.rglob("*") if path.is_file() and path.name != "statement.json")
    model = max(files, key=lambda path: path.stat().st_size)
    with altered(model, lambda content: content[:-1] + bytes([content[-1] ^ 1])):
        assert model.name in refuse(platform, authorised)
        said = platform.headway("models", "verify", "churn", code=5).stderr
        assert model.name in said
    extra = champion / "extra.bin"
    champion.chmod(0o755)
    extra.write_bytes(b"not signed")
    try:
        assert "extra.bin" in refuse(platform, authorised)
    finally:
        extra.unlink()


def test_an_altered_contract_is_not_deployed(platform: Platform, contract: Path, authorised: httpx.Client) -> None:
    platform.headway("login", "--user", "tester")
    with altered(contract, lambda content: content.replace(b"p99_ms: 45", b"p99_ms: 450")):
        said = refuse(platform, authorised)
        assert "contract of churn" in said
        assert "altered after product, risk" in said
        assert "altered" in platform.headway("contract", "verify", "churn", code=5).stderr
    assert platform.read("contract", "verify", "churn")["signed"].keys() == {"product", "risk"}


def test_a_missing_signature_is_named(platform: Platform, contract: Path, authorised: httpx.Client) -> None:
    platform.headway("login", "--user", "tester")

    def without_risk(content: bytes) -> bytes:
        document = json.loads(content)
        del document["signatures"]["risk"]
        return json.dumps(document).encode()

    with altered(contract.with_name("contract.signatures.json"), without_risk):
        said = refuse(platform, authorised)
        assert "not signed by risk" in said
        assert "product" not in said
        assert "--role risk" in said


def test_a_contract_that_cannot_be_read_names_file_and_field(platform: Platform, contract: Path) -> None:
    with altered(contract, lambda content: content.replace(b"p95_ms: 20", b"p95_ms: fast")):
        said = platform.headway("contract", "check", "churn", code=2).stderr
        assert "contract.yaml" in said
        assert "latency.p95_ms" in said


def test_deploying_needs_a_person_with_the_right(platform: Platform, authorised: httpx.Client) -> None:
    platform.headway("login", "--user", "intern", "--scope", "decide:churn")
    try:
        assert "deploy:churn" in platform.headway("deploy", "churn", code=3).stderr
    finally:
        platform.headway("login", "--user", "tester")
    assert authorised.post("/v1/decisions", json=BODY).status_code == 200


def test_the_chains_are_whole_and_a_change_or_a_cut_shows(platform: Platform, tmp_path: Path) -> None:
    found = platform.read("audit", "verify")
    assert found["ok"]
    assert found["events"] > 20
    assert {"demo.jsonl", "serving-churn.jsonl"} <= {path.name for path in (platform.home / "audit").iterdir()}

    def copied(name: str) -> Path:
        home = tmp_path / name
        home.mkdir()
        for folder in ("audit", "audit-anchors"):
            shutil.copytree(platform.home / folder, home / folder)
        shutil.copy(platform.home / "trust.json", home)
        return home

    def longest(home: Path) -> Path:
        return max((home / "audit").glob("*.jsonl"), key=lambda path: path.stat().st_size)

    whole, changed, cut, gone = (copied(name) for name in ("whole", "changed", "cut", "gone"))
    platform.headway("audit", "verify", home=whole)
    lines = longest(changed).read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"outcome":"', b'"outcome":"not ')
    longest(changed).write_bytes(b"".join(lines))
    assert f"{longest(changed).name}:4" in platform.headway("audit", "verify", code=5, home=changed).stdout
    content = longest(cut).read_bytes()
    longest(cut).write_bytes(b"".join(content.splitlines(keepends=True)[:-1]))
    assert longest(cut).name in platform.headway("audit", "verify", code=5, home=cut).stdout
    name = longest(gone).name
    longest(gone).unlink()
    assert name.removesuffix(".jsonl") in platform.headway("audit", "verify", code=5, home=gone).stdout
