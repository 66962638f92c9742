"""What the platform knows about a use case's features and sources, for the gates of its training."""

from __future__ import annotations

import msgspec

from headway.cluster.compose import Installation
from headway.cluster.features import Proof, proof_path
from headway.core.times import format_time
from headway.features.consistency import CONSISTENT, NOTHING
from headway.training.definitions import TrainingJob
from headway.training.gates.verdicts import Verdict

_NAMED = 3


def verdicts(at: Installation, job: TrainingJob) -> tuple[Verdict, ...]:
    """Return the verdicts that the job requires: the last proof of consistency, and whether batches are held back."""
    found = []
    if "consistency" in job.verdicts:
        found.append(_consistency(at, job))
    if "quality" in job.verdicts:
        found.append(_quality(at, job))
    return tuple(found)


def _consistency(at: Installation, job: TrainingJob) -> Verdict:
    path = proof_path(at.settings.home, job.use_case)
    if not path.is_file():
        how = f"no proof yet: headway features consistency {job.use_case}"
        return Verdict(gate="consistency", passed=None, detail=how)
    try:
        proof = msgspec.json.decode(path.read_bytes(), type=Proof)
    except msgspec.MsgspecError as error:
        return Verdict(gate="consistency", passed=None, detail=f"the last proof cannot be read: {error}")
    report = proof.report
    told = f"{report.verdict}: {report.mismatches:,} of {report.reads:,} reads differ, {format_time(proof.checked_at)}"
    passed = None if report.verdict == NOTHING else report.verdict == CONSISTENT
    return Verdict(gate="consistency", passed=passed, detail=told)


def _quality(at: Installation, job: TrainingJob) -> Verdict:
    names = sorted({job.spine.name, *(view.source.name for view in job.service.stored)})
    held = [case for name in names for case in at.quality.quarantine.cases(name)]
    told = "; ".join(f"batch {case.batch} of {case.source} is held" for case in held[:_NAMED])
    return Verdict(gate="quality", passed=not held, detail=told or f"no batch of {', '.join(names)} is held")
