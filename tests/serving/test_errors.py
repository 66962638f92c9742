from __future__ import annotations

import logging

import grpc
import pytest

from headway.core import errors
from headway.core.errors import HeadwayError
from headway.serving.errors import grpc_status, log_unexpected, own, status_of

ERRORS: list[tuple[HeadwayError, int, str]] = [
    (errors.TooLarge("much", field="rows"), 413, "INVALID_ARGUMENT"),
    (errors.NotFound("model", "x", known=["toy"]), 404, "NOT_FOUND"),
    (errors.Conflict("other"), 409, "ALREADY_EXISTS"),
    (errors.InvalidValue("inputs[0].shape", "wrong"), 422, "INVALID_ARGUMENT"),
    (errors.Malformed("no bytes"), 400, "INVALID_ARGUMENT"),
    (errors.Unauthenticated("who"), 401, "UNAUTHENTICATED"),
    (errors.Forbidden("you"), 403, "PERMISSION_DENIED"),
    (errors.QuotaExceeded("slow", retry_after_s=0.2), 429, "RESOURCE_EXHAUSTED"),
    (errors.Unavailable("later", retry_after_s=3.2), 503, "UNAVAILABLE"),
    (errors.Tampered("bytes"), 503, "UNAVAILABLE"),
    (errors.DefinitionError("wrong"), 500, "INTERNAL"),
    (errors.ServiceFailed("gone: /secret/path"), 500, "INTERNAL"),
]


@pytest.mark.parametrize(("error", "http", "code"), ERRORS, ids=lambda item: type(item).__name__)
def test_every_kind_has_a_status_of_both_protocols(error: HeadwayError, http: int, code: str) -> None:
    status = grpc_status(error)
    assert (status_of(error), status.code) == (http, code)
    assert grpc.StatusCode[code]
    assert dict(status.trailing)["error-code"] == (error.code if code != "INTERNAL" else "internal")


def test_capacity_says_when_to_come_back() -> None:
    assert dict(grpc_status(errors.QuotaExceeded("slow", retry_after_s=0.2)).trailing)["retry-after"] == "1"
    assert dict(grpc_status(errors.Unavailable("later", retry_after_s=3.2)).trailing)["retry-after"] == "4"


def test_the_field_is_in_the_text_and_in_the_metadata() -> None:
    status = grpc_status(errors.InvalidValue("inputs[0].shape", "wrong", hint="send [n, 1]"))
    assert status.details == "inputs[0].shape: wrong (send [n, 1])"
    assert dict(status.trailing) == {"error-code": "invalid_value", "error-field": "inputs[0].shape"}


@pytest.mark.parametrize("error", [ValueError("secret"), errors.ServiceFailed("secret"), KeyError("secret")])
def test_what_is_ours_is_not_told(error: Exception) -> None:
    status = grpc_status(error)
    assert status.code == "INTERNAL"
    assert "secret" not in str(status)


def test_a_text_of_any_length_fits_the_trailers_and_odd_fields_stay_out_of_the_metadata() -> None:
    status = grpc_status(errors.InvalidValue("inputs[ä\n].name", "ä" * 100_000))
    assert len(status.details.encode()) <= 1_000
    assert dict(status.trailing) == {"error-code": "invalid_value"}


def test_the_log_says_kind_and_place_of_the_unexpected_and_nothing_of_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def breaks(given: str) -> None:
        raise ValueError(given)

    log = logging.getLogger("headway.test")
    try:
        breaks("a customer's name" + "\n2026 ERROR root: forged")  # fmt: skip
    except ValueError as error:
        log_unexpected(log, error, "r1")
        log_unexpected(log, own(error), "r2")  # as a batch hands it to each of its callers
    log_unexpected(log, errors.Malformed("expected"), "r3")
    said = caplog.text
    assert said.count("failed: ValueError") == said.count("in breaks") == 2
    assert "r1" in said and "r2" in said and "r3" not in said
    assert "name\n2026" not in said
