"""From nothing to a live use case: signed contract, history in lake and online store, streams, champion, replicas.

Each step is skipped where what it would make is there already and still valid, so that a second run is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa

from headway.cluster import streams
from headway.cluster.compose import CONTRACT, Installation
from headway.cluster.demo.live import drain
from headway.cluster.demo.plan import live_range
from headway.cluster.deploy import deploy
from headway.cluster.history import batch_name, ingest_tables, known_before
from headway.cluster.loop import rewind, watch
from headway.cluster.training import make_champion, train
from headway.core.canonical import canonical, sha256
from headway.core.errors import EvidenceError
from headway.core.progress import Progress
from headway.core.routing import VersionRef, read_routing
from headway.core.types import Principal
from headway.features.history import History
from headway.features.kernel import kernel_sha256
from headway.governance import signoff
from headway.governance.keys import contract_role, signer_for
from headway.governance.statement import ModelStatement, verify_version
from headway.training.origin import describe_job

_MODEL = "demo:model:{use_case}:{inputs}"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A live use case at the start of its live range."""

    history: History
    tables: Mapping[str, pa.Table]
    start: int
    """First live time, UTC microseconds."""
    person: Principal
    statement: ModelStatement
    url: str


def prepare(at: Installation, use_case: str, *, seed: int, person: Principal, progress: Progress) -> Prepared:
    """Bring the use case to the start of its live range."""
    history = at.history(use_case)
    start, _ = live_range(history)
    names = [source.name for source in history.sources]
    ingester = at.workload("headway-ingest", [f"ingest:{name}" for name in names], "platform_operations")
    with progress.stage(f"{use_case}: sign contract") as stage:
        stage.note(sign(at, use_case, person))
    with progress.stage(f"{use_case}: {'simulate' if history.simulated else 'read'} history") as stage:
        load = history.drifted or history.load
        tables = load(seed)
        stage.note(", ".join(f"{table.num_rows:,} {name}" for name, table in tables.items()))
    drain(at, history, person, progress)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="features") as pool:
        rewind(at, use_case)
        applied = pool.submit(_apply, at, use_case, person, progress)
        with progress.stage(f"{use_case}: ingest") as stage:
            past = known_before(tables, start)
            batch = batch_name(use_case, seed, past, start)
            rows = ingest_tables(at, history, past, batch=batch, watermark=start, principal=ingester)
            stage.note(f"{rows:,} rows known before the live range")
        applied.result()
        streaming = pool.submit(streams.run, at, person, progress, names)
        ref = _champion(at, use_case, start, seed=seed, person=person, progress=progress)
        streaming.result()
    make_champion(at, use_case, ref, person, "demo: start of the live range")
    deployed = deploy(at, use_case, person, progress)
    with progress.stage(f"{use_case}: watch"):
        watch(at, use_case, person)
    return Prepared(
        history=history,
        tables=tables,
        start=start,
        person=person,
        statement=_verified(at, use_case, ref),
        url=deployed.url,
    )


def sign(at: Installation, use_case: str, person: Principal) -> str:
    """Sign for every missing role with the development keys, and say so."""
    path = at.project.app_folder(use_case) / CONTRACT
    missing = signoff.status(path, at.trust).missing
    for role in missing:
        signoff.sign(path, role, signer_for(at.settings, contract_role(role)), person, at.clock, at.audit)
    loaded = at.contract(use_case)
    return f"{', '.join(missing) or 'nobody'} signed with development keys, {loaded.sha256[:12]}"


def apply_features(at: Installation, use_case: str, person: Principal) -> str:
    """Write the feature service into the Feast registry."""
    from headway.features.catalogue.registry import apply

    person.require("features", "write")
    service = at.service(use_case)
    apply([service], at.settings, person, at.audit)
    return f"{service.name}: {len(service.features)} features"


def _apply(at: Installation, use_case: str, person: Principal, progress: Progress) -> None:
    with progress.stage(f"{use_case}: apply features") as stage:
        stage.note(apply_features(at, use_case, person))


def _champion(
    at: Installation, use_case: str, as_of: int, *, seed: int, person: Principal, progress: Progress
) -> VersionRef:
    """Return the version trained on exactly these inputs, training it if there is none that holds."""
    job, contract = at.job(use_case), at.contract(use_case)
    inputs = [describe_job(job, as_of), kernel_sha256(job.service), contract.sha256, seed]
    key = _MODEL.format(use_case=use_case, inputs=sha256(canonical(inputs))[:16])
    record = at.control.get(key)
    if record is not None:
        ref = msgspec.json.decode(record.value, type=VersionRef)
        if _holds(at, use_case, ref):
            with progress.stage(f"{use_case}: reuse model") as stage:
                stage.note(f"version {ref.version} was trained on the same inputs")
            return ref
    why = "the demo replays the past: a champion of an earlier run may have learnt from this very range"
    trained = train(at, use_case, person, progress, as_of=as_of, without_champion=why)
    at.control.put(key, msgspec.json.encode(trained.ref), expected=0 if record is None else record.version)
    return trained.ref


def _holds(at: Installation, use_case: str, ref: VersionRef) -> bool:
    try:
        _verified(at, use_case, ref)
    except EvidenceError:
        return False
    return True


def _verified(at: Installation, use_case: str, ref: VersionRef) -> ModelStatement:
    return verify_version(
        Path(ref.path),
        at.trust,
        name=use_case,
        version=ref.version,
        clock=at.clock,
        statement_sha256=ref.statement_sha256,
    )


def serving_version(at: Installation, use_case: str) -> str:
    """Return the champion's version."""
    champion = read_routing(at.control, use_case).champion
    return "" if champion is None else champion.version
