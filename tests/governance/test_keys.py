from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headway.core.errors import InvalidValue, NotFound
from headway.core.settings import Settings, load_settings
from headway.governance.keys import MODEL_SIGN, development_keys, key_path, signer_for, trust_root
from headway.governance.signing import Signer, generate_key


def test_every_role_has_a_key_that_is_trusted_for_it_alone(settings: Settings) -> None:
    trust = trust_root(settings)
    for role in ("model:sign", "audit:anchor", "contract:sign:risk"):
        assert trust.keys[signer_for(settings, role).key_id].roles == (role,)


def test_making_keys_twice_or_at_once_changes_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: development_keys(tmp_path, ["contract:sign:risk"]), range(16)))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    development_keys(tmp_path, ["contract:sign:risk"])
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) == 5


def test_a_lost_trust_root_is_made_again_and_foreign_keys_stay(tmp_path: Path) -> None:
    development_keys(tmp_path, ["contract:sign:risk"])
    content = (tmp_path / "trust.json").read_bytes()
    (tmp_path / "trust.json").unlink()
    development_keys(tmp_path, ["contract:sign:risk"])
    assert (tmp_path / "trust.json").read_bytes() == content
    old = Signer(key_path(tmp_path, MODEL_SIGN)).key_id
    key_path(tmp_path, MODEL_SIGN).unlink()
    development_keys(tmp_path, [])
    known = trust_root(load_settings(home=tmp_path)).keys
    assert old in known
    assert Signer(key_path(tmp_path, MODEL_SIGN)).key_id in known


def test_settings_name_another_signing_key(home: Path, tmp_path: Path) -> None:
    own = generate_key(tmp_path / "own.pem")
    settings = load_settings(home=home, signing_key=str(tmp_path / "own.pem"))
    assert signer_for(settings, MODEL_SIGN).key_id == own
    assert signer_for(settings, "contract:sign:risk").key_id != own


def test_an_unknown_role_lists_the_known_ones(settings: Settings) -> None:
    with pytest.raises(NotFound, match="contract:sign:risk"):
        signer_for(settings, "contract:sign:legal")


@pytest.mark.parametrize("role", ["", "../../etc", "a/b", "model:", "a..b", ":"])
def test_a_role_is_no_path(tmp_path: Path, role: str) -> None:
    with pytest.raises(InvalidValue):
        key_path(tmp_path, role)
