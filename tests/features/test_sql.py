from __future__ import annotations

import pickle

import numpy as np
import pytest

from headway.core.errors import DefinitionError
from headway.core.types import Columns
from headway.features.definitions import FeatureService
from headway.features.kernel import transform
from headway.features.sql import RowwiseSql
from headway.features.transformations import sql_transformation

QUERY = """
SELECT amount / nullif(usual, 0) AS unusual,
       CASE WHEN usual > 5 THEN 1 ELSE 0 END AS large,
       hour(make_timestamp(event_time)) < 6 AS is_night
FROM input
"""
STEP = sql_transformation("ratios", QUERY)
SERVICE = FeatureService(name="s", views=(), request={"amount": "float32", "usual": "float32"}, transformations=(STEP,))
HOUR = 3_600_000_000


def columns(n: int) -> Columns:
    rng = np.random.default_rng(3)
    usual = rng.integers(0, 10, n).astype(np.float32)
    usual[::7] = np.nan
    return {"amount": rng.random(n).astype(np.float32), "usual": usual}


def test_inputs_and_outputs_follow_from_the_query() -> None:
    assert STEP.inputs == ("amount", "usual", "event_time")
    assert tuple(STEP.outputs) == ("unusual", "large", "is_night")
    assert STEP.source == QUERY


def test_one_row_and_many_agree_to_the_bit() -> None:
    n = 5_000
    given, at = columns(n), np.arange(n, dtype=np.int64) * HOUR
    whole = transform(SERVICE, given, at)
    for row in (0, 1, 7, 2_048, n - 1):
        one = transform(SERVICE, {name: values[row : row + 1] for name, values in given.items()}, at[row : row + 1])
        for name in STEP.outputs:
            assert one[name].view(np.int32)[0] == whole[name].view(np.int32)[row], name


def test_missing_is_null_inside_and_nan_outside() -> None:
    given: Columns = {
        "amount": np.array([1.0, 1.0, 3.0], np.float32),
        "usual": np.array([np.nan, 0.0, 6.0], np.float32),
    }
    made = transform(SERVICE, given, np.array([0, 7 * HOUR, 30 * HOUR]))
    assert np.isnan(made["unusual"][:2]).all()
    assert made["unusual"][2] == np.float32(0.5)
    assert made["large"].tolist() == [0.0, 0.0, 1.0]
    assert made["is_night"].tolist() == [1.0, 0.0, 0.0]


def test_a_copy_in_another_process_is_the_same_function() -> None:
    assert isinstance(STEP.function, RowwiseSql)
    again = pickle.loads(pickle.dumps(STEP.function))
    assert again.query == STEP.function.query
    assert again({**columns(3), "event_time": np.arange(3)}).keys() == STEP.outputs.keys()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT sum(a) AS s FROM input", "calls sum"),
        ("SELECT a AS x FROM input WHERE a > 1", "where clause"),
        ("SELECT a AS x FROM input ORDER BY a", "modifiers"),
        ("SELECT a AS x FROM input LIMIT 1", "modifiers"),
        ("SELECT DISTINCT a AS x FROM input", "modifiers"),
        ("SELECT lag(a) OVER () AS x FROM input", "uses window"),
        ("SELECT (SELECT max(a) FROM input) AS x FROM input", "uses subquery"),
        ("SELECT random() AS x FROM input", "calls random"),
        ("SELECT now() AS x FROM input", "calls now"),
        ("SELECT a FROM input", "without a name"),
        ("SELECT a AS x, b AS x FROM input", "without a name"),
        ("SELECT * FROM input", "uses star"),
        ("SELECT a AS x FROM input JOIN other USING (a)", "reads something else"),
        ("SELECT a AS x FROM read_csv('/etc/passwd')", "reads something else"),
        ("SELECT a AS x FROM input; DROP TABLE input", "SELECT"),
        ("DELETE FROM input", "SELECT"),
        ("SELEC a", "syntax"),
        ("SELECT nosuch(a) AS x FROM input", "there is not"),
    ],
)
def test_what_is_not_rowwise_is_refused_when_it_is_declared(query: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=f"(?i){message}"):
        sql_transformation("wrong", query)


def test_a_text_result_is_refused_by_name() -> None:
    step = sql_transformation("texts", "SELECT 'a' || amount::VARCHAR AS label FROM input")
    service = FeatureService(name="s", views=(), request={"amount": "float32"}, transformations=(step,))
    with pytest.raises(DefinitionError, match=r"texts\.label"):
        transform(service, {"amount": np.ones(1, np.float32)}, np.zeros(1, np.int64))
