from __future__ import annotations

from headway.cluster.metrics_page import page
from headway.serving.metrics import ALL
from tests.conftest import ROOT


def test_the_page_is_that_of_the_code() -> None:
    stored = (ROOT / "docs" / "metrics.md").read_text()
    assert stored == page(), "python -m headway.cluster.metrics_page docs/metrics.md"


def test_every_metric_has_a_meaning() -> None:
    text = page()
    for instrument in ALL:
        assert f"| `{instrument.name}` |" in text
        assert instrument.help.endswith(".")
