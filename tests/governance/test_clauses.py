from __future__ import annotations

import msgspec
import pytest

from headway.governance import clauses as table
from headway.governance.clauses import clauses
from headway.governance.contract import Contract, leaves, load_contract
from tests.governance.conftest import ROOT

CONTRACTS = [load_contract(ROOT / "serve_apps" / name / "contract.yaml").contract for name in ("fraud", "churn")]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_every_leaf_is_listed_once_in_order(contract: Contract) -> None:
    assert [clause.path for clause in clauses(contract)] == [path for path, _ in leaves(contract)]


def test_a_clause_without_mechanism_is_never_called_enforced() -> None:
    listed = [clause for contract in CONTRACTS for clause in clauses(contract)]
    assert all(clause.mechanism is not None for clause in listed if clause.enforced)
    assert {clause.enforced for clause in listed} == {True, False}


def test_every_pattern_of_the_table_is_needed() -> None:
    paths = [path for contract in CONTRACTS for path, _ in leaves(contract)]
    for pattern, _, _ in table._TABLE:
        assert any(pattern.fullmatch(path) for path in paths), pattern.pattern


def test_values_are_shown_as_written() -> None:
    shown = {clause.path: clause.value for clause in clauses(CONTRACTS[0])}
    assert shown["freshness[0].max_lag"] == "5s"
    assert shown["canary.steps"] == [5, 10, 50]
    assert shown["decision.request.amount"] == "float32"


def test_a_mechanism_that_is_said_to_enforce_reads_the_field() -> None:
    for contract in CONTRACTS:
        for clause in clauses(contract):
            if not clause.enforced or clause.mechanism is None or clause.mechanism in (table.CONTRACT, table.SIGNOFF):
                continue
            path = ROOT / "platform" / f"{clause.mechanism.replace('.', '/')}.py"
            assert path.exists(), f"{clause.path}: {clause.mechanism} does not exist"
            leaf = clause.path.rpartition(".")[2]
            assert leaf in path.read_text(), f"{clause.path}: {clause.mechanism} never reads it"


def test_a_ladder_with_a_variant_is_not_called_enforced() -> None:
    contract = msgspec.structs.replace(CONTRACTS[0], fallback=("previous", "variant:small", "rules"))
    assert {clause.path: clause.enforced for clause in clauses(contract)}["fallback"] is False
    assert {clause.path: clause.enforced for clause in clauses(CONTRACTS[0])}["fallback"] is True
