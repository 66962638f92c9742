"""Scores a range of past decisions with the champion, on Ray Data, by the kernel and the back end that serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from headway.cluster.compose import Installation
from headway.core import ray_session
from headway.core.canonical import canonical, sha256
from headway.core.errors import NotFound
from headway.core.progress import Progress
from headway.core.project import Project
from headway.core.routing import VersionRef, read_routing
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Columns, Principal
from headway.features.distinct import first_known
from headway.features.historical import training_set
from headway.features.kernel import matrix
from headway.features.lake.tables import TableSpec
from headway.features.named import service_named
from headway.governance.statement import verify_version
from headway.models.artefact import Artefact, load_artefact

_PURPOSES = ("model_training", "monitoring")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What was written."""

    table: str
    rows: int
    snapshot_id: int
    version: str


def score(
    at: Installation,
    use_case: str,
    principal: Principal,
    progress: Progress,
    *,
    since: int | None = None,
    until: int | None = None,
) -> Scored:
    """Score the requests with event_time in [since, until) and commit them as one snapshot of `scores.<use case>`.

    Raises NotFound where there is no champion, or nothing to score.
    """
    principal.require("score", at.project.require(use_case))
    purpose = at.contract(use_case).contract.privacy.purposes[0]
    worker = at.workload("headway-scoring", ["data:read"], purpose)
    service, requests = at.service(use_case), at.history(use_case).requests
    champion = read_routing(at.control, use_case).champion
    if champion is None:
        raise NotFound("champion of use case", use_case, known=[])
    ray_session.connect(at.settings)
    with progress.stage("read") as stage:
        spine = at.reader.scan(
            requests, worker, purpose, event_time=(since or 0, until if until is not None else at.clock.now())
        )
        if not spine.num_rows:
            raise NotFound("row to score in", requests.table)
        spine = first_known(spine, requests.id).sort_by([(EVENT_TIME, "ascending"), (requests.id, "ascending")])
        stage.note(f"{spine.num_rows:,} rows")
    with progress.stage("features"):
        rows = training_set(spine, service, at.reader, worker, purpose)
    with progress.stage("predict") as stage:
        scored = rows.map_batches(
            _Predict,
            fn_constructor_args=(
                champion,
                use_case,
                at.settings.trust_root or str(at.settings.home / "trust.json"),
                service.name,
                str(at.settings.project),
            ),
            batch_format="pyarrow",
            batch_size=65_536,
            concurrency=1,
            num_cpus=0.5,
        )
        table = pa.concat_tables(scored.iter_batches(batch_format="pyarrow", batch_size=None))
        kept = {name: requests.columns[name] for name in dict.fromkeys([requests.id, *service.keys])}
        columns = {**kept, "score": "float32", "model_version": "string"}
        table = table.select([*columns, EVENT_TIME, KNOWN_TIME])
        stage.note(f"{table.num_rows:,} scores")
    with progress.stage("commit") as stage:
        batch = sha256(canonical([use_case, champion.version, since, until, table.num_rows, at.clock.now()]))
        spec = TableSpec(name=f"scores.{use_case}", columns=columns, purposes=(*_PURPOSES, purpose))
        snapshot = at.committer.append(spec, table, batch)
        stage.note(f"snapshot {snapshot}")
    at.audit.append(
        actor=principal.sub,
        kind=principal.kind,
        action="score",
        resource=f"{use_case}/{champion.version}",
        purpose=principal.purpose,
        outcome=f"{table.num_rows} rows",
        refs=(champion.statement_sha256,),
    )
    return Scored(table=spec.name, rows=table.num_rows, snapshot_id=snapshot, version=champion.version)


class _Predict:
    """A scoring actor: verifies and loads the champion once, then scores blocks."""

    def __init__(self, champion: VersionRef, use_case: str, trust: str, service: str, project: str) -> None:
        self._version = champion.version
        self._artefact = _load(champion, use_case, Path(trust))
        self._service = service_named(Project(Path(project)), service)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return the block with its scores."""
        columns: Columns = {name: block[name].to_numpy() for name in self._service.features}
        scores = self._artefact.backend.predict(matrix(self._service, columns))
        return block.append_column("score", pa.array(scores)).append_column(
            "model_version", pa.array([self._version] * block.num_rows)
        )


def _load(champion: VersionRef, use_case: str, trust: Path) -> Artefact:
    from headway.core.clock import SystemClock
    from headway.governance.signing import TrustRoot

    folder = Path(champion.path)
    statement = verify_version(
        folder,
        TrustRoot.load(trust),
        name=use_case,
        version=champion.version,
        clock=SystemClock(),
        statement_sha256=champion.statement_sha256,
    )
    return load_artefact(folder, statement)
