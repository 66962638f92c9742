"""The middle stages of a training: the candidate is measured, and held against everything that is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from headway.core.progress import Stage
from headway.features.profile import build_profile
from headway.governance.contract import LoadedContract
from headway.governance.files import read_regular
from headway.governance.keys import trust_root
from headway.governance.registry import Registry
from headway.governance.signing import MAX_ENVELOPE, Envelope, Signer
from headway.training import stored_dataset
from headway.training.evaluate import Measure
from headway.training.gates.document import GATES_FILE, sign_report, write_report
from headway.training.gates.judge import Against, judge, measure, rows_of
from headway.training.gates.poisoning import labelled_rows
from headway.training.gates.results import GateReport
from headway.training.gates.rows import Rows
from headway.training.origin import code_sha256, describe_job
from headway.training.publish import Candidate, record_failure
from headway.training.stage_cache import Kept
from headway.training.steps import ModelSteps, world_size


class Gated(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates said."""

    report: GateReport
    failed_version: str = ""
    """Under which the measures of a candidate that failed are kept."""


@dataclass(kw_only=True)
class JudgedSteps(ModelSteps):
    """One run's stages up to the gates."""

    registry: Registry
    signer: Signer
    contract: LoadedContract
    against: Callable[[], Against] = Against
    """Asked once, when the gates are held."""

    # --- evaluate

    @cached_property
    def rows(self) -> Rows:
        """Return the scored evaluation rows with what the job declares about them."""
        return rows_of(self.job, self.evaluation, self.scores)

    @cached_property
    def evaluated_kept(self) -> Kept:
        """Measure the model on the evaluation rows."""
        inputs = {
            "train": self.fitted_kept.folder.name,
            "seed": self.job.seed, "group": self.job.group, "blocks": self.job.blocks,
        }  # fmt: skip

        def make(folder: Path, _: Stage) -> str:
            measures = measure(self.rows)
            (folder / "measures.json").write_bytes(msgspec.json.encode(measures))
            return ", ".join(f"{name} {found.value:.3f}" for name, found in measures.items())

        return self.stages.run("evaluate", inputs, make)

    @cached_property
    def measures(self) -> Mapping[str, Measure]:
        """Return the measures."""
        return msgspec.json.decode((self.evaluated_kept.folder / "measures.json").read_bytes(), type=dict[str, Measure])

    # --- gates

    @cached_property
    def gated_kept(self) -> Kept:
        """Hold the candidate against contract, job, champion and verdicts; one that fails is recorded once."""
        described, against = describe_job(self.job, self.as_of), self.against()
        inputs = {
            "evaluate": self.evaluated_kept.folder.name,
            "gates": described["gates"],
            "judging": described["judging"],
            "contract": self.contract.sha256,
            "against": against.describe(),
            "signer": self.signer.key_id,
        }

        def make(folder: Path, _: Stage) -> str:
            report = self._judge(against)
            evidence, failed = sign_report(report, self.signer), ""
            write_report(evidence, folder)
            if not report.passed:
                candidate = self.candidate(report, evidence)
                failed = record_failure(candidate, registry=self.registry, principal=self.principal)
            (folder / "gates.json").write_bytes(msgspec.json.encode(Gated(report=report, failed_version=failed)))
            return f"{sum(result.passed for result in report.results)} of {len(report.results)} hold"

        return self.stages.run("gates", inputs, make)

    def _judge(self, against: Against) -> GateReport:
        labelled = labelled_rows(stored_dataset.blocks(self.rows_kept.folder), self.job)
        return judge(
            self.job, self.evaluation, self.rows, self.measures, fitted=self.fitted, labelled=labelled,
            against=against, contract=self.contract, as_of=self.as_of, snapshots=self.snapshots,
            trust=trust_root(self.settings), clock=self.clock,
        )  # fmt: skip

    @cached_property
    def gated(self) -> Gated:
        """Return what the gates said."""
        return msgspec.json.decode((self.gated_kept.folder / "gates.json").read_bytes(), type=Gated)

    @cached_property
    def evidence(self) -> Envelope:
        """Return the signed report of the gates."""
        return Envelope.from_json(read_regular(self.gated_kept.folder / GATES_FILE, limit=MAX_ENVELOPE))

    def candidate(self, gates: GateReport, evidence: Envelope) -> Candidate:
        """Return all that is known of the model."""
        rows, facts = self.evaluation, stored_dataset.facts_of(self.rows_kept.folder)
        return Candidate(
            job=self.job, as_of=self.as_of, fitted=self.fitted, sample=rows.matrix, schema=rows.schema,
            profile=build_profile(rows.matrix, list(self.job.service.features), self.scores),
            measures=self.measures, gates=gates, evidence=evidence, snapshots=self.snapshots, rows=facts.rows,
            origin={
                "dataset_sha256": facts.sha256, "world_size": world_size(self.job), "code_sha256": code_sha256(),
            },
        )  # fmt: skip
