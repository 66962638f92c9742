"""The last stages of a training, signing and registration, and the run's own record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headway.core.errors import Conflict, NotFound
from headway.core.progress import Stage
from headway.core.routing import VersionRef
from headway.governance.contract import LoadedContract
from headway.governance.statement import ModelStatement
from headway.models.compute import cost_note
from headway.models.parity import BackendReport
from headway.training.journal import RunRecord, write_run
from headway.training.origin import describe_job, git_sha
from headway.training.publish import register_candidate, sign_candidate, write_candidate
from headway.training.stage_cache import Kept
from headway.training.steps_judged import JudgedSteps

_VERSION = "version"


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A signed candidate that the registry does not hold yet."""

    run_id: str
    version: str
    reports: tuple[BackendReport, ...]
    statement: ModelStatement


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is there."""

    run_id: str
    ref: VersionRef
    statement: ModelStatement


@dataclass(kw_only=True)
class Steps(JudgedSteps):
    """One run's stages, all of them."""

    contract_now: Callable[[], LoadedContract] | None
    root: Path
    requested_by: str = ""

    # --- sign, register

    def register(self) -> Registered:
        """Sign and register the candidate; one that was registered of the same inputs is returned."""
        sign = {
            "gates": self.gated_kept.folder.name,
            "definition": describe_job(self.job, self.as_of),
            "git": git_sha(self.settings.project),
            "signer": self.signer.key_id,
            **self._made_by,
        }
        cache = self.stages.cache
        inputs = {"sign": cache.key("sign", sign)}
        done, _ = cache.find("register", cache.key("register", inputs))
        if done is not None and self._there(done):
            self.stages.skip("sign", inputs["sign"])
            return _registered(self.stages.run("register", inputs, _nothing))
        signed = self.stages.run("sign", sign, self._sign, still=self._signed_holds)

        def make(folder: Path, _: Stage) -> str:
            found = self._fill(signed.folder)
            (folder / "registered.json").write_bytes(msgspec.json.encode(found))
            return f"version {found.ref.version} is @challenger"

        registered = self.stages.run("register", inputs, make, still=self._there)
        cache.drop("sign", signed.folder.name)  # the registry holds the files now
        return _registered(registered)

    def _sign(self, folder: Path, _: Stage) -> str:
        candidate, version_folder = self.candidate(self.gated.report, self.evidence), folder / _VERSION
        reports, memory = write_candidate(candidate, version_folder, self.clock)
        self._require_same_contract()
        self._write(reserving=True)
        run_id, version = self.registry.reserve(self.job.use_case, self.principal)
        self._write(reserving=False, reserved=version)
        try:
            statement = sign_candidate(
                candidate, version_folder, version=version, run_id=run_id, backend=reports[0].name, memory=memory,
                settings=self.settings, contract=self.contract, signer=self.signer, clock=self.clock,
                requested_by=self.requested_by,
            )  # fmt: skip
        except BaseException:
            self.registry.abandon(self.job.use_case, version, self.principal, metrics=candidate.values())
            self._write(reserved="")
            raise
        signed = Signed(run_id=run_id, version=version, reports=reports, statement=statement)
        (folder / "signed.json").write_bytes(msgspec.json.encode(signed))
        return cost_note(reports, memory, self.contract.contract.tier)

    def _require_same_contract(self) -> None:
        """Refuse to sign for a contract that is not the one that the run began with."""
        if self.contract_now is None:
            return
        now = self.contract_now()
        if now.sha256 != self.contract.sha256:
            raise Conflict(
                f"the contract of {self.job.use_case} changed while the model was trained: it began under "
                f"{self.contract.sha256[:12]}, signed off now is {now.sha256[:12]}",
                hint="train again: what does not depend on the contract is kept",
            )

    def _signed_holds(self, kept: Kept) -> bool:
        """Whether a signed candidate can still be registered: its version is reserved, and it has not expired."""
        signed = _signed(kept.folder)
        states = {item.version: item for item in self.registry.versions(self.job.use_case, self.principal)}
        found = states.get(signed.version)
        waits = found is not None and found.run_id == signed.run_id and found.state in ("reserved", "ready")
        return waits and signed.statement.expires > self.clock.now()

    def _fill(self, folder: Path) -> Registered:
        signed = _signed(folder)
        if self.pins is not None:  # pinned before the version is there
            self.pins.keep(self.job.use_case, signed.version, self.snapshots)
        found = register_candidate(
            self.candidate(self.gated.report, self.evidence), folder / _VERSION, signed.statement, signed.reports,
            registry=self.registry, principal=self.principal,
        )  # fmt: skip
        ref = VersionRef(version=found.version, path=str(found.path), statement_sha256=found.statement_sha256)
        return Registered(run_id=signed.run_id, ref=ref, statement=signed.statement)

    def _there(self, kept: Kept) -> bool:
        """Whether the registry still has the version as it was registered."""
        registered = _registered(kept)
        if registered.statement.expires <= self.clock.now():
            return False
        try:
            found = self.registry.resolve(self.job.use_case, registered.ref.version, self.principal)
        except (NotFound, Conflict):
            return False
        return found.statement_sha256 == registered.ref.statement_sha256 and Path(registered.ref.path).exists()

    # --- the run's own record

    def begin(self) -> None:
        """Note that the run is on."""
        self._write()

    def give_up_half_reserved(self, before: RunRecord | None) -> None:
        """Mark versions as failed that an earlier run reserved and will never fill."""
        if before is None or not (before.reserving or before.reserved):
            return
        waiting = {_signed(kept.folder).version for kept in self._signed_entries()}
        for item in self.registry.versions(self.job.use_case, self.principal):
            ours = before.reserving or item.version == before.reserved
            if item.state == "reserved" and ours and item.version not in waiting:
                self.registry.abandon(self.job.use_case, item.version, self.principal)

    def _signed_entries(self) -> list[Kept]:
        cache = self.stages.cache
        keys = [path.name for path in (cache.root / "sign").glob("[!.]*")]
        return [kept for key in keys if (kept := cache.find("sign", key)[0]) is not None]

    def finish(self) -> None:
        """Note that the run came to its end, and let old entries go."""
        self._write(finished=True, reserved="")
        self.stages.cache.prune(keep=self.stages.used)

    def _write(self, **changes: Any) -> None:
        self.journal = msgspec.structs.replace(self.journal, **changes)
        write_run(self.root, self.journal)


def _signed(folder: Path) -> Signed:
    return msgspec.json.decode((folder / "signed.json").read_bytes(), type=Signed)


def _registered(kept: Kept) -> Registered:
    return msgspec.json.decode((kept.folder / "registered.json").read_bytes(), type=Registered)


def _nothing(folder: Path, _: Stage) -> str:
    raise AssertionError(f"{folder.name} is kept")
