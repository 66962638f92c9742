"""The features of a running use case: joined to a file, filled from the lake, and proved equal to what was served."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.acceptance.platform import Platform


def test_served_features_equal_the_lakes(platform: Platform) -> None:
    platform.headway("login", "--user", "tester")
    found = platform.read("features", "consistency", "churn", "--limit", "200")
    assert found["report"]["verdict"] == "consistent"
    assert found["report"]["reads"] > 50
    assert {item["equal"] for item in found["report"]["features"]} == {found["report"]["reads"]}
    assert platform.audited("features.consistency")[-1]["actor"] == "tester"


def test_a_file_is_joined_as_of_each_row(platform: Platform, tmp_path: Path) -> None:
    platform.headway("login", "--user", "tester")
    log = platform.scan("decisions.churn")
    served = log.filter(pc.equal(log["degraded"], "")).slice(0, 60)  # other decisions were made without features
    names = ["decision_id", "customer_id", "amount", "event_time"]
    pq.write_table(served.select(names), tmp_path / "rows.parquet")
    joined = platform.read(
        *("features", "join", "churn", "--spine", str(tmp_path / "rows.parquet")),
        "--out",
        str(tmp_path / "out.parquet"),
    )
    assert joined["rows"] == 60
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["decision_id"].to_pylist() == served["decision_id"].to_pylist()
    for name in ("purchases__count_90d", "purchases__since_last", "purchases_per_day"):
        assert table[name].to_numpy().tobytes() == served[name].to_numpy().tobytes(), name


def test_a_file_that_lacks_a_column_or_is_none_is_named(platform: Platform, tmp_path: Path) -> None:
    platform.headway("login", "--user", "tester")
    out = str(tmp_path / "out.parquet")
    pq.write_table(pa.table({"customer_id": [1], "event_time": [1]}), tmp_path / "rows.parquet")
    done = platform.headway(
        "features", "join", "churn", "--spine", str(tmp_path / "rows.parquet"), "--out", out, code=2
    )
    assert "amount" in done.stderr
    done = platform.headway("features", "join", "churn", "--spine", str(tmp_path / "no.csv"), "--out", out, code=2)
    assert "--spine" in done.stderr
    assert not Path(out).exists()


def test_filling_again_changes_nothing(platform: Platform) -> None:
    platform.headway("login", "--user", "tester")
    platform.headway("features", "materialize", "churn")
    again = platform.read("features", "materialize", "churn")
    [purchases] = (report for name, report in again["views"].items() if name.startswith("purchases@"))
    assert purchases["events"] == 0
    assert platform.read("features", "consistency", "churn", "--limit", "200")["report"]["verdict"] == "consistent"
