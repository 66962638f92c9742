"""The one place where an error becomes a line on stderr and an exit status."""

from __future__ import annotations

import json
import sys

from headway.core.errors import (
    AccessError,
    CapacityError,
    DefinitionError,
    EvidenceError,
    HeadwayError,
    InputError,
    PlatformError,
)

EXIT_CODES: tuple[tuple[type[HeadwayError], int], ...] = (
    (InputError, 2),
    (DefinitionError, 2),
    (AccessError, 3),
    (CapacityError, 4),
    (EvidenceError, 5),
    (PlatformError, 6),
)
"""Kind of error → exit status; other errors are 1, an interrupt 130."""


def exit_code(error: HeadwayError) -> int:
    """Return the exit status of an error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def report(error: HeadwayError, *, as_json: bool) -> int:
    """Print the error on stderr, the end of a log below it, and return the exit status."""
    if as_json:
        described = {"error": error.message, "code": error.code, "field": error.field, "hint": error.hint}
        sys.stderr.write(json.dumps(described, ensure_ascii=False) + "\n")
        return exit_code(error)
    line, _, details = error.message.partition("\n")
    where = f"{error.field}: " if error.field and not isinstance(error, DefinitionError) else ""
    way_out = f" ({error.hint})" if error.hint else ""
    sys.stderr.write(f"headway: {where}{line}{way_out}\n")
    if details:
        sys.stderr.write("".join(f"    {text}\n" for text in details.splitlines()))
    return exit_code(error)
