"""Writing, verifying and loading a version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headway.core.clock import SystemClock
from headway.core.errors import InvalidValue, NotFound, Tampered
from headway.features.profile import build_profile
from headway.governance.statement import ModelStatement, sign_version, verify_version
from headway.models.artefact import load_artefact, read_definition, write_artefact
from headway.models.input_schema import describe_input
from headway.models.onnx_export import tree_models
from headway.models.probe import probe
from tests.models.conftest import NAMES, Made, decode

FILES = {
    "model.json", "model.onnx", "profile.json", "input_schema.json", "warmup.json", "definition.json",
    "statement.dsse.json",
}  # fmt: skip


def verified(made: Made, folder: Path) -> ModelStatement:
    return verify_version(folder, made.trust, name="fraud", clock=SystemClock())


def resigned(made: Made, folder: Path, **fields: object) -> ModelStatement:
    """Sign a changed folder with the right key: what remains is what `load_artefact` itself must catch."""
    sign_version(folder, made.fields | fields, made.signer)
    return verified(made, folder)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


def test_a_written_version_loads_and_scores_as_trained(made: Made) -> None:
    artefact = load_artefact(made.folder, verified(made, made.folder))
    assert {path.name for path in made.folder.iterdir()} == FILES
    assert artefact.input_schema.names == NAMES
    assert artefact.backend.name == artefact.statement.backend
    expected = made.booster.inplace_predict(made.matrix)
    np.testing.assert_allclose(artefact.backend.predict(made.matrix), expected, atol=1e-6, rtol=0)
    assert artefact.profile.rows == len(made.matrix)
    assert read_definition(made.folder, artefact.statement) == {"name": "fraud_v1"}


@pytest.mark.parametrize("backend", ["onnx", "xgboost"])
def test_both_back_ends_can_serve_it(made: Made, copied: Path, backend: str) -> None:
    artefact = load_artefact(copied, resigned(made, copied, backend=backend))
    assert artefact.backend.name == backend


def test_a_file_changed_after_verification_is_refused(made: Made, copied: Path) -> None:
    statement = verified(made, copied)
    path = copied / f"model.{'onnx' if statement.backend == 'onnx' else 'json'}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Tampered):
        load_artefact(copied, statement)


@pytest.mark.parametrize("data", [b"", b"\x00" * 10, b"not a model", b"{L\x00\x00\x00\x00\x00\x00\x00"])
def test_a_signed_file_that_is_no_model_kills_only_the_trial(made: Made, copied: Path, data: bytes) -> None:
    for backend, name in (("onnx", "model.onnx"), ("xgboost", "model.json")):
        (copied / name).write_bytes(data)
        with pytest.raises(Tampered):
            load_artefact(copied, resigned(made, copied, backend=backend))


def test_wrong_expected_outputs_are_refused(made: Made, copied: Path) -> None:
    warmup = decode(copied, "warmup.json")
    warmup["expected"][3] += 0.001
    (copied / "warmup.json").write_bytes(json.dumps(warmup).encode())
    with pytest.raises(Tampered, match="warm-up row 3"):
        load_artefact(copied, resigned(made, copied))
    with pytest.raises(Tampered, match="warm-up row 3"):
        load_artefact(copied, resigned(made, copied), trial=False)


def test_a_profile_other_than_the_one_named_is_refused(made: Made, copied: Path) -> None:
    other = build_profile(made.matrix[:100], list(NAMES), made.booster.inplace_predict(made.matrix[:100]))
    (copied / "profile.json").write_bytes(other.to_json())
    with pytest.raises(Tampered, match="profile"):
        load_artefact(copied, resigned(made, copied))


def test_files_about_different_features_are_refused(made: Made, copied: Path) -> None:
    names = (*NAMES[:-1], "other")
    (copied / "input_schema.json").write_bytes(msgspec.json.encode(describe_input(names, made.matrix)))
    with pytest.raises(Tampered, match="different features"):
        load_artefact(copied, resigned(made, copied))


def test_an_unknown_backend_lists_the_known_ones(made: Made, copied: Path) -> None:
    with pytest.raises(NotFound, match="onnx, xgboost"):
        load_artefact(copied, resigned(made, copied, backend="pickle"))


def test_writing_into_a_used_folder_is_refused(made: Made, copied: Path) -> None:
    with pytest.raises(InvalidValue, match="not empty"):
        write_artefact(
            copied,
            models=tree_models(made.booster),
            profile=build_profile(made.matrix, list(NAMES), made.booster.inplace_predict(made.matrix)),
            input_schema=describe_input(NAMES, made.matrix),
            sample=made.matrix,
            definition={},
            clock=SystemClock(),
        )


def test_the_trial_measures_the_memory_that_the_model_needs(made: Made) -> None:
    assert 20 * 2**20 < probe(made.folder, "onnx") < 300 * 2**20


def test_a_trial_that_does_not_end_is_ended(made: Made) -> None:
    with pytest.raises(Tampered, match="did not end within"):
        probe(made.folder, "onnx", timeout_s=0.01)
