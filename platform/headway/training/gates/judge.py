"""The one place where the gates of a candidate come together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headway.core.clock import Clock
from headway.core.errors import EvidenceError, HeadwayError, InvalidValue
from headway.core.routing import VersionRef
from headway.core.types import Matrix
from headway.governance.contract import LoadedContract
from headway.governance.signing import TrustRoot
from headway.models.backends import open_backend
from headway.models.parity import compare
from headway.training.dataset import Evaluation
from headway.training.definitions import TrainingJob
from headway.training.evaluate import TAIL, Measure, evaluate, interval
from headway.training.fitted import Fitted
from headway.training.gates.calibration import check_calibration
from headway.training.gates.champion import check_champion, check_segments
from headway.training.gates.fairness import check_fairness
from headway.training.gates.floors import check_floors
from headway.training.gates.incumbent import Incumbent, load_incumbent
from headway.training.gates.latency import check_latency
from headway.training.gates.poisoning import LabelledRows, check_sources
from headway.training.gates.results import GateReport, GateResult, PartMeasures, unmeasured
from headway.training.gates.rows import Rows
from headway.training.gates.verdicts import Verdict, check_verdicts
from headway.training.judging import Gate
from headway.training.measuring import Task, blocks_of, prepare, resamples
from headway.training.origin import describe_job

_SPEED_ROWS = 256
_PART_DRAWS = 60


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a candidate is held against that is not in its job or contract."""

    champion: VersionRef | None = None
    """The version that serves; None: there is none yet."""
    without_champion: str = ""
    """Why the champion is left out: other features, a replay of the past. Told in the report."""
    verdicts: tuple[Verdict, ...] = ()
    """What others found: consistency of features, quality of sources."""

    @property
    def held(self) -> VersionRef | None:
        """The champion, unless it is left out."""
        return None if self.without_champion else self.champion

    def describe(self) -> dict[str, Any]:
        """Return what decides the gates, as builtin types; a champion that is left out only by its being there."""
        return {
            "champion": "" if self.held is None else self.held.statement_sha256,
            "first": self.champion is None,
            "without_champion": self.without_champion,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def task_of(job: TrainingJob, score: npt.NDArray[Any]) -> Task:
    """Return what kind of task the scores answer."""
    if score.ndim == 2:
        return "multiclass"
    return "regression" if getattr(job.recipe, "regression", False) else "binary"


def rows_of(job: TrainingJob, evaluation: Evaluation, score: npt.NDArray[Any]) -> Rows:
    """Return the evaluation rows with what the job declares about them."""
    features = {name: evaluation.matrix[:, index] for index, name in enumerate(job.service.features)}
    columns = features | dict(evaluation.columns)
    return Rows(
        label=evaluation.label,
        score=score,
        event_time=evaluation.event_time,
        task=task_of(job, score),
        group=evaluation.group,
        blocks=blocks_of(job.blocks, evaluation.event_time, columns),
        columns={part.column: columns[part.column] for part in (*job.segments, *job.protected)},
        seed=job.seed,
    )


def measure(rows: Rows) -> Mapping[str, Measure]:
    """Return the candidate's measures."""
    return evaluate(
        rows.label, rows.score, event_time=rows.event_time, group=rows.group, blocks=rows.blocks, task=rows.task,
        seed=rows.seed,
    )  # fmt: skip


def judge(
    job: TrainingJob,
    evaluation: Evaluation,
    rows: Rows,
    measures: Mapping[str, Measure],
    *,
    fitted: Fitted,
    labelled: LabelledRows | None,
    against: Against,
    contract: LoadedContract,
    as_of: int,
    snapshots: Mapping[str, int],
    trust: TrustRoot,
    clock: Clock,
) -> GateReport:
    """Hold a candidate against everything that is declared; nothing that cannot be measured passes.

    DefinitionError for a metric or a column that is not there.
    """
    promised = contract.contract
    floors: list[tuple[str, float]] = [(clause.metric, clause.floor) for clause in promised.accuracy]
    results = check_floors(measures, job=job.gates, contract=floors)
    results += _succession(job, evaluation, rows, against, floors, as_of=as_of, trust=trust, clock=clock)
    results += check_calibration(rows, job.calibration_error)
    results += check_fairness(rows, job.protected, promised.decision.output.label.threshold)
    results += check_sources(labelled, seed=job.seed)
    results += _latency(fitted, evaluation.matrix, promised.latency.p95_ms, job.latency_share, clock)
    results += check_verdicts(against.verdicts, job.verdicts, first=against.champion is None)
    return GateReport(
        results=tuple(results),
        use_case=job.use_case,
        as_of=as_of,
        decided_at=clock.now(),
        contract_sha256=contract.sha256,
        snapshots=dict(snapshots),
        champion="" if against.held is None else against.held.version,
        measures=dict(measures),
        segments=tuple(part_measures(job, rows)),
    )


def part_measures(job: TrainingJob, rows: Rows) -> list[PartMeasures]:
    """Return the measures of every part; intervals of a column's parts hold at once, their tails divided by them."""
    found = []
    for segment in dict.fromkeys((*job.segments, *job.protected)):
        parts = segment.parts(rows.columns[segment.column])
        for name, chosen in parts.items():
            part = rows.part(chosen)
            size = len(part.label)
            try:
                metrics = prepare(part.task, part.label, part.score)
            except InvalidValue:
                found.append(PartMeasures(part=name, rows=size, measures={}))
                continue
            if size < segment.minimum:
                found.append(PartMeasures(part=name, rows=size, measures={}))
                continue
            draws = [metrics(weight) for weight in resamples(size, part.blocks, _PART_DRAWS, part.seed)]
            table = {
                metric: interval(value, np.array([draw[metric] for draw in draws]), size, TAIL / len(parts))
                for metric, value in metrics(None).items()
                if np.isfinite(value)
            }
            found.append(PartMeasures(part=name, rows=size, measures=table))
    return found


def declared(job: TrainingJob, contract: list[tuple[str, float]]) -> list[Gate]:
    """Return one gate per declared metric, the job's first; exactly one of them is primary."""
    gates = {gate.metric: gate for gate in reversed(job.gates)}
    gates = {gate.metric: gates[gate.metric] for gate in job.gates}
    for metric, _ in contract:
        gates.setdefault(metric, Gate(metric=metric))
    found = list(gates.values())
    if found and not any(gate.primary for gate in found):
        found[0] = replace(found[0], primary=True)
    return found


def _succession(
    job: TrainingJob,
    evaluation: Evaluation,
    rows: Rows,
    against: Against,
    floors: list[tuple[str, float]],
    *,
    as_of: int,
    trust: TrustRoot,
    clock: Clock,
) -> list[GateResult]:
    gates = declared(job, floors)
    primary = next((gate.metric for gate in gates if gate.primary), "")
    if against.held is None:
        why = "no champion yet: the floors decide" if against.champion is None else against.without_champion
        return [GateResult(gate="champion", metric=primary, source="job", value=None, passed=True, detail=why)]
    version = against.held.version
    try:
        champion = load_incumbent(against.held, job.use_case, trust, clock)
        _unseen(job, champion, as_of)
        scores = champion.scores(evaluation.matrix, job.service.features)
    except HeadwayError as error:
        return [unmeasured("champion", primary, f"champion {version}", str(error))]
    rule = job.refresh if champion.refreshed_by(describe_job(job, as_of)) else "superior"
    results = check_champion(rows, scores, version=version, gates=gates, rule=rule)
    return results + check_segments(rows, scores, job.segments, version=version, primary=primary)


def _unseen(job: TrainingJob, champion: Incumbent, as_of: int) -> None:
    """Raise EvidenceError for a champion that was trained on rows of this evaluation range: it knows the answers."""
    _, (start, _) = job.ranges(as_of)
    if champion.seen_until() > start:
        raise EvidenceError(
            f"champion {champion.version} was trained on rows of this evaluation range",
            hint="train as of a later time, or --without-champion with the reason",
        )


def _latency(fitted: Fitted, matrix: Matrix, p95_ms: float, share: float, clock: Clock) -> list[GateResult]:
    sample = matrix[:: max(1, len(matrix) // _SPEED_ROWS)][:_SPEED_ROWS]
    reference, *others = [open_backend(name, data) for name, data in fitted.models().items()]
    return check_latency(compare(reference, tuple(others), sample, clock)[0], p95_ms=p95_ms, share=share)
