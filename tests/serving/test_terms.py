from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from features.fraud import fraud_v1, terminal_risk
from headway.core.errors import DefinitionError
from headway.governance.contract import parse_contract
from headway.serving.terms import require_agreement

TEXT = (Path(__file__).parents[2] / "serve_apps" / "fraud" / "contract.yaml").read_text()
home = dataclasses.replace(
    fraud_v1, views=(*fraud_v1.views, terminal_risk.aliased("home", key={"terminal_id": "home_id"})), features=()
)


def test_a_contract_names_the_keys_of_its_service_and_views_that_are_stored() -> None:
    require_agreement(parse_contract(TEXT.encode()), fraud_v1)
    more = parse_contract(
        TEXT.replace("entity: [customer_id, terminal_id]", "entity: [customer_id, terminal_id, home_id]").encode()
    )
    require_agreement(more, home)
    with pytest.raises(DefinitionError, match=r"decision\.entity.*home_id"):
        require_agreement(parse_contract(TEXT.encode()), home)
    with pytest.raises(DefinitionError, match=r"decision\.entity"):
        require_agreement(more, fraud_v1)


@pytest.mark.parametrize("name", ["home", "terminal_rsik"])
def test_freshness_is_of_a_stored_view(name: str) -> None:
    text = TEXT.replace("view: terminal_risk", f"view: {name}").replace("terminal_id]", "terminal_id, home_id]")
    with pytest.raises(DefinitionError, match=r"freshness\[1\]\.view.*known: card_activity, terminal_risk"):
        require_agreement(parse_contract(text.encode()), home)
