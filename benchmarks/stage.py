"""Sets the stage of the serving benchmark: a platform of its own, real features, a signed model, a signed overlay.

The simulated history is moved so that it ends now, so that every window of a live decision holds its events. The
overlay raises ceiling and limits; every mechanism stays on.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.load import ROOT, post
from headway.core.clock import SystemClock
from headway.core.control import RedisControlStore
from headway.core.platform_state import resolve
from headway.core.project import Project
from headway.core.routing import VersionRef, promote
from headway.core.settings import Settings, load_settings
from headway.core.times import EVENT_TIME, KNOWN_TIME, MINUTE, SECOND
from headway.core.types import Principal
from headway.features.definitions import FeatureService
from headway.features.kernel import kernel_sha256, matrix, transform
from headway.governance.contract_schema import Contract

USE_CASE = "fraud"
_DAYS = 60
_SAMPLE = 20_000
_BODIES = 2_000
_HOUR = 3_600 * SECOND
_RATE = 1e6


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the measurements need."""

    settings: Settings
    model: Path
    """XGBoost JSON of the same trees, for the peers."""
    features: list[list[float]]
    """Rows of model input, for the peers' requests."""
    rows: list[dict[str, Any]]
    """Rows of decisions, for our requests."""


def project_copy(source: Path, target: Path) -> Path:
    """Copy the definition folders, so that the overlay touches nothing."""
    for name in ("features", "training", "serve_apps", "monitoring"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def sign_overlay(settings: Settings) -> None:
    """Raise ceiling and limits of the copied contract, and sign it with the development keys."""
    from headway.governance.contract import load_contract, overlay, save_contract
    from headway.governance.contract_schema import Limits

    path = settings.project / "serve_apps" / USE_CASE / "contract.yaml"
    raised = overlay(load_contract(path).contract, ceiling_rps=_RATE, limits=Limits(default_rps=_RATE, burst=1_000_000))
    save_contract(raised, path)
    sign_contract(settings, USE_CASE)


def sign_contract(settings: Settings, use_case: str) -> None:
    """Sign a contract of the copied project with the development keys of all its roles."""
    from headway.governance.audit import AuditLog
    from headway.governance.contract import load_contract
    from headway.governance.keys import contract_role, development_keys, signer_for
    from headway.governance.signoff import sign

    path = settings.project / "serve_apps" / use_case / "contract.yaml"
    contract = load_contract(path).contract
    clock = SystemClock()
    audit = AuditLog(settings.home / "audit", "benchmark", clock)
    development_keys(settings.home, [contract_role(role) for role in contract.signoff])
    principal = Principal(
        sub="benchmark",
        kind="ci",
        scopes=frozenset(contract_role(role) for role in contract.signoff),
        purpose="benchmark",
        expires=clock.now() + _HOUR,
    )
    for role in contract.signoff:
        sign(path, role, signer_for(settings, contract_role(role)), principal, clock, audit)


def contract_as_written() -> Contract:
    """Return the use case's contract as this repository has it."""
    from headway.governance.contract import load_contract

    return load_contract(ROOT / "serve_apps" / USE_CASE / "contract.yaml").contract


def use_contract(settings: Settings, contract: Contract) -> None:
    """Make it the copied project's contract, and sign it."""
    from headway.governance.contract import save_contract

    save_contract(contract, settings.project / "serve_apps" / USE_CASE / "contract.yaml")
    sign_contract(settings, USE_CASE)


def fill(settings: Settings, service: FeatureService, folder: Path) -> tuple[Stage, VersionRef]:
    """Load features, train, sign and return the stage and the version to promote."""
    tables = _moved_to_now(settings)
    _materialize(settings, service, tables)
    outcomes = (
        tables["fraud_outcomes"]
        .slice(tables["fraud_outcomes"].num_rows - 10 * _SAMPLE)
        .take(np.random.default_rng(7).choice(10 * _SAMPLE, _SAMPLE, replace=False))
    )
    values = asyncio.run(_read(settings, service, outcomes))
    ref = _model(settings, service, folder, values, outcomes["is_fraud"].to_numpy().astype(np.float32))
    names = [*service.keys, *service.request]
    rows = [{name: row[name] for name in names} for row in outcomes.slice(0, _BODIES).to_pylist()]
    features = np.nan_to_num(values[:_BODIES], nan=-1.0).tolist()
    return Stage(settings=settings, model=folder / "model.json", features=features, rows=rows), ref


def _moved_to_now(settings: Settings) -> dict[str, pa.Table]:
    import importlib

    Project(settings.project).collect("features", FeatureService)
    simulator = importlib.import_module("features.simulators.fraud")
    tables: dict[str, pa.Table] = dict(simulator.tables(11, days=_DAYS))
    last = max(int(pc.max(table[EVENT_TIME]).as_py()) for table in tables.values())
    shift = SystemClock().now() - MINUTE - last
    return {name: _shifted(table, shift) for name, table in tables.items()}


def _shifted(table: pa.Table, shift: int) -> pa.Table:
    moved = {column: pc.add(table[column], pa.scalar(shift, pa.int64())) for column in (EVENT_TIME, KNOWN_TIME)}
    return pa.table({name: moved.get(name, table[name]) for name in table.column_names})


def _materialize(settings: Settings, service: FeatureService, tables: dict[str, pa.Table]) -> None:
    from headway.features.online_store import OnlineStore

    store = OnlineStore(settings.redis_features_url)
    now = SystemClock().now()
    for view in service.stored:
        rows = tables[view.source.name]
        store.write(view, rows.filter(pc.less_equal(rows[KNOWN_TIME], now)))
        store.set_watermark(view, now + _HOUR)
    store.close()


async def _read(settings: Settings, service: FeatureService, rows: pa.Table) -> Any:
    from headway.features.online import OnlineReader

    reader = OnlineReader(service, settings.redis_features_url, timeout_s=10.0)
    now = SystemClock().now()
    parts = []
    for start in range(0, rows.num_rows, 1_000):
        part = rows.slice(start, 1_000)
        at = np.full(part.num_rows, now, dtype=np.int64)
        columns: Any = {name: part[name].to_numpy() for name in (*service.keys, *service.request)}
        online = await reader.read({name: columns[name] for name in service.keys}, at)
        parts.append(matrix(service, transform(service, {**columns, **online.columns}, at)))
    await reader.close()
    return np.concatenate(parts)


def _model(settings: Settings, service: FeatureService, folder: Path, values: Any, label: Any) -> VersionRef:
    """Train 100 trees and make a signed version of them, as training does, without the registry."""
    import xgboost

    from headway.core.canonical import sha256
    from headway.features.profile import build_profile
    from headway.governance.keys import MODEL_SIGN, signer_for, trust_root
    from headway.governance.statement import PAYLOAD_TYPE, sign_version
    from headway.models.artefact import write_artefact
    from headway.models.input_schema import describe_input
    from headway.models.onnx_export import tree_models

    names = tuple(service.features)
    data = xgboost.DMatrix(values, label=label, feature_names=list(names))
    params = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "seed": 7, "nthread": 1}
    booster = xgboost.train(params, data, num_boost_round=100)
    scores = booster.predict(data)
    profile = build_profile(values, list(names), scores)
    schema = describe_input(names, values)
    clock = SystemClock()
    reports = write_artefact(
        folder,
        models=tree_models(booster),
        profile=profile,
        input_schema=schema,
        sample=values[:512],
        definition={"service": service.describe()},
        clock=clock,
    )
    contract = (settings.project / "serve_apps" / USE_CASE / "contract.yaml").read_bytes()
    fields = {
        "name": USE_CASE,
        "version": "1",
        "created": clock.now(),
        "expires": clock.now() + 24 * _HOUR,
        "run_id": "benchmark",
        "git_sha": "benchmark",
        "lock_sha256": sha256(b"benchmark"),
        "contract_sha256": sha256(contract),
        "kernel_sha256": kernel_sha256(service),
        "snapshots": {},
        "feature_service": service.name,
        "metrics": {},
        "gates": (),
        "reference_profile_sha256": profile.sha256(),
        "input_schema": {name: {"type": "float32"} for name in names},
        "hardware": {"profile": "benchmark", "tier": "cpu", "minimum_memory_bytes": 0},
        "backend": reports[0].name,
    }
    envelope = sign_version(folder, fields, signer_for(settings, MODEL_SIGN))
    payload = trust_root(settings).verify(envelope, PAYLOAD_TYPE, MODEL_SIGN)
    return VersionRef(version="1", path=str(folder), statement_sha256=sha256(payload))


def prepare(work: Path, source: Path) -> Stage:
    """Start a platform under `work`, fill it and promote the model."""
    from headway.cluster.local.lifecycle import up

    settings = load_settings(home=work / "home", project=project_copy(source, work / "project"))
    up(settings)
    resolved = resolve(settings)
    sign_overlay(resolved)
    service = next(s for s in Project(resolved.project).collect("features", FeatureService) if s.name == "fraud_v1")
    stage, ref = fill(resolved, service, work / "model")
    store = RedisControlStore(resolved.redis_control_url)
    promote(store, USE_CASE, ref, reason="benchmark", by="benchmark", now=SystemClock().now())
    return stage


def our_requests(stage: Stage, token: str, *, prefix: str = f"/{USE_CASE}", keys: str | None = None) -> list[bytes]:
    """Return whole decision requests of one row, each with other entities; with `keys`, each with a key of its own."""
    requests = []
    for index, row in enumerate(stage.rows):
        headers = {"authorization": f"Bearer {token}"}
        if keys is not None:
            headers["idempotency-key"] = f"{keys}-{index}"
        requests.append(post(f"{prefix}/v1/decisions", json.dumps({"rows": [row]}).encode(), headers))
    return requests
