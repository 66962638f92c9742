from __future__ import annotations

import json

import pytest

from headway.cli.failures import exit_code, report
from headway.core.errors import (
    DefinitionError,
    Forbidden,
    HeadwayError,
    InvalidValue,
    NotSigned,
    ServiceFailed,
    Unavailable,
)

CASES = [
    (InvalidValue("rows[0].amount", "is not a number"), 2),
    (DefinitionError("not a duration", file="contract.yaml", field="latency"), 2),
    (Forbidden("no"), 3),
    (Unavailable("later", retry_after_s=1.0), 4),
    (NotSigned("risk is missing", missing=("risk",)), 5),
    (ServiceFailed("Ray ended"), 6),
    (HeadwayError("else"), 1),
]


@pytest.mark.parametrize(("error", "code"), CASES)
def test_each_kind_has_its_exit_status(error: HeadwayError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_is_one_line_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    report(InvalidValue("amount", "is not a number", hint="write 12.5"), as_json=False)
    assert capsys.readouterr().err == "headway: amount: is not a number (write 12.5)\n"


def test_the_end_of_a_log_stands_below_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(ServiceFailed("Ray ended\nline 1\nline 2", hint="see ray.log"), as_json=False)
    assert capsys.readouterr().err == "headway: Ray ended (see ray.log)\n    line 1\n    line 2\n"


def test_a_definition_error_names_its_place_once(capsys: pytest.CaptureFixture[str]) -> None:
    report(DefinitionError("no", file="contract.yaml", field="latency.p99_ms", expected="a number"), as_json=False)
    assert capsys.readouterr().err == "headway: contract.yaml: latency.p99_ms: no; expected a number\n"


def test_with_json_an_error_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = report(InvalidValue("amount", "bad", hint="write 12.5"), as_json=True)
    described = json.loads(capsys.readouterr().err)
    assert (code, described["code"], described["field"], described["hint"]) == (
        2,
        "invalid_value",
        "amount",
        "write 12.5",
    )
