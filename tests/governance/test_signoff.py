from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headway.core.clock import ManualClock
from headway.core.errors import DefinitionError, Forbidden, InvalidValue, NotSigned, Tampered, Unauthenticated
from headway.core.settings import Settings
from headway.core.types import Principal
from headway.governance.audit import MemoryAudit
from headway.governance.keys import contract_role, signer_for
from headway.governance.signing import TrustRoot
from headway.governance.signoff import SIGNATURES, require_signed, sign, status
from tests.governance.conftest import NOW, ROLES

Person = Callable[..., Principal]


@pytest.fixture
def sign_as(
    contract: Path, settings: Settings, person: Person, clock: ManualClock, audit: MemoryAudit
) -> Callable[..., Path]:
    def make(role: str, path: Path = contract) -> Path:
        who = person(contract_role(role))
        return sign(path, role, signer_for(settings, contract_role(role)), who, clock, audit)

    return make


def test_a_contract_is_signed_when_every_role_has(
    contract: Path, trust: TrustRoot, sign_as: Callable[..., Path], settings: Settings
) -> None:
    for index, role in enumerate(ROLES):
        found = status(contract, trust)
        assert found.missing == ROLES[index:]
        with pytest.raises(NotSigned) as caught:
            require_signed(contract, trust)
        assert caught.value.missing == ROLES[index:]
        assert sign_as(role) == contract.with_name(SIGNATURES)
    assert require_signed(contract, trust, name="fraud").sha256 == status(contract, trust).sha256
    assert status(contract, trust).complete
    assert status(contract, trust).signed == {role: signer_for(settings, contract_role(role)).key_id for role in ROLES}
    with pytest.raises(DefinitionError):
        require_signed(contract, trust, name="churn")


def test_an_altered_contract_is_tampered_and_signing_again_heals(
    contract: Path, trust: TrustRoot, sign_as: Callable[..., Path]
) -> None:
    for role in ROLES:
        sign_as(role)
    contract.write_text(contract.read_text().replace("floor: 0.55", "floor: 0.05"))
    with pytest.raises(Tampered, match="altered after product, risk, sre"):
        require_signed(contract, trust)
    sign_as("risk")
    assert status(contract, trust).altered == ("product", "sre")
    with pytest.raises(Tampered, match="product, sre"):
        require_signed(contract, trust)
    sign_as("product")
    sign_as("sre")
    require_signed(contract, trust)


def test_a_comment_is_no_alteration(contract: Path, trust: TrustRoot, sign_as: Callable[..., Path]) -> None:
    for role in ROLES:
        sign_as(role)
    contract.write_text("# reviewed\n" + contract.read_text())
    require_signed(contract, trust)


def test_signatures_cannot_be_moved(contract: Path, trust: TrustRoot, sign_as: Callable[..., Path]) -> None:
    for role in ROLES:
        path = sign_as(role)
    content = json.loads(path.read_bytes())
    content["signatures"]["risk"] = content["signatures"]["product"]
    path.write_text(json.dumps(content))
    assert set(status(contract, trust).refused) == {"risk"}
    with pytest.raises(Tampered, match="risk: no signature by a key trusted for contract:sign:risk"):
        require_signed(contract, trust)


def test_one_use_case_cannot_borrow_anothers_signatures(
    contract: Path, trust: TrustRoot, sign_as: Callable[..., Path]
) -> None:
    for role in ROLES:
        path = sign_as(role)
    other = contract.parents[1] / "churn"
    other.mkdir()
    (other / "contract.yaml").write_text(contract.read_text().replace("name: fraud", "name: churn"))
    shutil.copy(path, other)
    with pytest.raises(Tampered):
        require_signed(other / "contract.yaml", trust)


def test_a_key_of_another_role_does_not_count(
    contract: Path,
    trust: TrustRoot,
    settings: Settings,
    person: Person,
    clock: ManualClock,
    audit: MemoryAudit,
) -> None:
    wrong = signer_for(settings, contract_role("product"))
    sign(contract, "risk", wrong, person("contract:sign:risk"), clock, audit)
    assert "risk" in status(contract, trust).refused


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"signatures": {"risk": {}}}', b"\xff", b'{"signatures": 1}'])
def test_a_broken_signature_file_is_tampered(contract: Path, trust: TrustRoot, content: bytes) -> None:
    contract.with_name(SIGNATURES).write_bytes(content)
    with pytest.raises(Tampered):
        require_signed(contract, trust)


def test_a_linked_signature_file_is_tampered(contract: Path, trust: TrustRoot, sign_as: Callable[..., Path]) -> None:
    for role in ROLES:
        path = sign_as(role)
    path.rename(path.with_name("elsewhere.json"))
    path.symlink_to("elsewhere.json")
    with pytest.raises(Tampered):
        require_signed(contract, trust)


def test_signing_needs_the_scope_a_known_role_and_a_living_identity(
    contract: Path, settings: Settings, person: Person, clock: ManualClock, audit: MemoryAudit
) -> None:
    signer = signer_for(settings, contract_role("risk"))
    with pytest.raises(Forbidden, match="contract:sign:risk"):
        sign(contract, "risk", signer, person("contract:sign:product"), clock, audit)
    with pytest.raises(InvalidValue, match="legal"):
        sign(contract, "legal", signer, person("contract:sign:legal"), clock, audit)
    with pytest.raises(Unauthenticated):
        sign(contract, "risk", signer, person("contract:sign:risk", expires=NOW), clock, audit)
    assert not contract.with_name(SIGNATURES).exists()
    assert [event.outcome for event in audit.events] == ["denied"]


def test_every_signature_is_audited_with_the_hash(
    contract: Path, trust: TrustRoot, sign_as: Callable[..., Path], audit: MemoryAudit
) -> None:
    sign_as("risk")
    event = audit.events[-1]
    assert (event.action, event.resource, event.outcome) == ("contract:sign:risk", "contract:fraud", "done")
    assert event.refs == (status(contract, trust).sha256,)


def test_roles_may_sign_at_once(contract: Path, trust: TrustRoot, sign_as: Callable[..., Path]) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(sign_as, ROLES))
    require_signed(contract, trust)
    names = {item.name for item in contract.parent.iterdir()}
    assert names == {"contract.yaml", SIGNATURES}
