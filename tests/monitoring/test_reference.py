"""References come from the signed profile of the routed champion, bin for bin what replicas count."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import EvidenceError
from headway.core.routing import VersionRef
from headway.core.times import DAY
from headway.features.profile import Counter, Profile, build_profile
from headway.governance.keys import MODEL_SIGN
from headway.governance.signing import Signer, TrustRoot, generate_key
from headway.governance.statement import sign_version
from headway.models.artefact import PROFILE_FILE
from headway.monitoring.reference import VerifiedReferences, reference_of
from tests.monitoring.support import START


def profile() -> Profile:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(3_000, 2)).astype(np.float32)
    matrix[:600, 0] = 0.0
    matrix[600:700, 1] = np.nan
    return build_profile(matrix, ["amount", "count"], rng.random(3_000).astype(np.float32))


def test_bins_are_the_profiles_and_nulls_are_apart() -> None:
    known = profile()
    reference = reference_of(known, version="1", profile_sha256="a" * 64)
    assert [bins.name for bins in reference.bins] == ["amount", "count", "score"]
    assert [int(reference.counts[bins.null]) for bins in reference.bins] == [0, 100, 0]
    assert reference.rows(reference.counts).tolist() == [3_000] * 3
    counter = Counter(known)
    counter.add(np.array([[np.nan, 5.0], [0.0, np.nan]], np.float32), np.array([0.5, 0.5], np.float32))
    counts = counter.drain()
    assert reference.rows(counts).tolist() == [2, 2, 2]
    amount, number, _ = reference.bins
    assert (counts[amount.null], counts[number.null]) == (1, 1)


def version(tmp_path: Path) -> tuple[VersionRef, VerifiedReferences]:
    folder = tmp_path / "version"
    folder.mkdir()
    known = profile()
    (folder / PROFILE_FILE).write_bytes(known.to_json())
    signer = signing(tmp_path)
    envelope = sign_version(
        folder,
        {
            "name": "fraud",
            "version": "4",
            "created": START,
            "expires": START + DAY,
            "run_id": "r",
            "git_sha": "g",
            "lock_sha256": "l",
            "contract_sha256": "0" * 64,
            "kernel_sha256": "0" * 64,
            "snapshots": {},
            "feature_service": "fraud_v1",
            "metrics": {},
            "gates": (),
            "reference_profile_sha256": known.sha256(),
            "input_schema": {},
            "hardware": {"profile": "test", "tier": "cpu", "minimum_memory_bytes": 0},
            "backend": "xgboost",
        },
        signer[0],
    )
    pinned = envelope.payload_sha256
    champion = VersionRef(version="4", path=str(folder), statement_sha256=pinned)
    return champion, VerifiedReferences("fraud", signer[1], ManualClock(START + 1))


def signing(tmp_path: Path) -> tuple[Signer, TrustRoot]:
    path = tmp_path / "model.key"
    key_id = generate_key(path)
    signer = Signer(path)
    trust = tmp_path / "trust.json"
    public = base64.b64encode(signer.public).decode()
    trust.write_text(json.dumps({"keys": {key_id: {"public": public, "roles": [MODEL_SIGN]}}}))
    trust.chmod(0o600)
    return signer, TrustRoot.load(trust)


def test_a_verified_champion_gives_its_profile(tmp_path: Path) -> None:
    champion, references = version(tmp_path)
    reference = references(champion)
    assert (reference.version, reference.profile_sha256) == ("4", profile().sha256())
    assert np.array_equal(reference.counts, profile().flat())


@pytest.mark.parametrize("change", ["bytes", "pin", "extra"])
def test_anything_that_does_not_verify_gives_nothing(tmp_path: Path, change: str) -> None:
    champion, references = version(tmp_path)
    folder = Path(champion.path)
    if change == "bytes":
        (folder / PROFILE_FILE).write_bytes((folder / PROFILE_FILE).read_bytes().replace(b"600", b"601", 1))
    elif change == "extra":
        (folder / "more.json").write_text("{}")
    else:
        champion = VersionRef(version="4", path=str(folder), statement_sha256="0" * 64)
    with pytest.raises(EvidenceError):
        references(champion)
