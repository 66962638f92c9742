from __future__ import annotations

import pickle

from headway.core.errors import NotFound, names_near


def test_an_unknown_name_is_told_its_nearest() -> None:
    known = ["card_activity", "terminal_risk", "card_profile"]
    assert str(NotFound("view", "Card_activty", known=known)) == (
        "unknown view 'Card_activty'; did you mean 'card_activity'? known: card_activity, card_profile, terminal_risk"
    )
    assert str(NotFound("view", "zzz", known=known)).startswith("unknown view 'zzz'; known: card_activity")
    assert str(NotFound("view", "zzz", known=[])) == "unknown view 'zzz'; known: none"
    assert str(NotFound("view", "zzz")) == "unknown view 'zzz'"
    error = pickle.loads(pickle.dumps(NotFound("view", "x", known=["y"])))
    assert str(error) == "unknown view 'x'; known: y"


def test_a_long_list_is_cut_but_still_searched() -> None:
    text = names_near("feature_77x", [f"feature_{number}" for number in range(100)])
    assert "did you mean 'feature_77'" in text
    assert text.endswith("… 70 more")


def test_a_name_of_any_length_is_told_in_short() -> None:
    error = NotFound("model", "a" * 1_000_000, known=["fraud"])
    assert len(error.message) < 200
