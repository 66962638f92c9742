"""Every error Headway raises on purpose, in one tree, because callers branch on the kind and never on the text.

HeadwayError
├── InputError                what the caller sent
│   ├── Malformed             cannot be parsed at all
│   ├── InvalidValue          parsed, but not the contract's values; names the field
│   ├── TooLarge              more bytes or rows than the limit
│   ├── NotFound              no such use case, model, version, source
│   └── Conflict              another writer or another body was first
├── AccessError
│   ├── Unauthenticated       no identity, or one that does not verify
│   └── Forbidden             a good identity without the right
├── CapacityError             carries `retry_after_s`
│   ├── QuotaExceeded         the caller's own limit
│   └── Unavailable           shed, not ready, or a dependency is down
├── EvidenceError             what is signed, hashed or chained does not hold
│   ├── Tampered              bytes differ from what was signed or chained
│   ├── NotSigned             a required signature is missing
│   └── GateFailed            a candidate is below a declared floor
├── DefinitionError           a definition or settings file of the team is wrong; names file, field and expected form
└── PlatformError             the platform's own state or services
    ├── CorruptState          a state file cannot be read; says how to recover, never deletes
    └── ServiceFailed         a service did not start or stopped; names its log

Transport codes are not known here: `headway.serving.errors` maps the tree to HTTP in one place.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 30


def names_near(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` where some known names resemble it, then the names there are."""
    listed = sorted(set(known))
    lower = {other.lower(): other for other in listed}
    near = [lower[found] for found in get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    guess = f"; did you mean {' or '.join(repr(other) for other in near)}?" if near else ""
    shown = listed if len(listed) <= _LISTED else [*listed[:_LISTED], f"… {len(listed) - _LISTED} more"]
    return f"{guess}{'' if guess else ';'} known: {', '.join(shown) or 'none'}"


_LONGEST_NAME = 128


class HeadwayError(Exception):
    """Base of all; `code` is stable and machine-readable, `hint` is the way out."""

    code = "internal"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        self.message = message
        self.field = field
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        """The message, where it is, and the way out, on one line."""
        where = f"{self.field}: " if self.field else ""
        way_out = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{way_out}"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by state: errors cross Ray processes, and subclasses have constructors of their own."""
        return (rebuild, (type(self), self.message, self.field, self.hint, dict(self.__dict__)))


def rebuild(
    kind: type[HeadwayError], message: str, field: str | None, hint: str | None, state: dict[str, object]
) -> HeadwayError:
    """Return an error from what it said elsewhere, without its constructor."""
    error = kind.__new__(kind)
    HeadwayError.__init__(error, message, field=field, hint=hint)
    error.__dict__.update(state)
    return error


class InputError(HeadwayError):
    """What the caller sent cannot be used."""

    code = "invalid"


class Malformed(InputError):
    """The bytes cannot be parsed."""

    code = "malformed"


class InvalidValue(InputError):
    """Parsed, but a value is not what the contract or schema allows."""

    code = "invalid_value"

    def __init__(self, field: str, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message, field=field, hint=hint)
        if code is not None:
            self.code = code


class TooLarge(InputError):
    """More bytes or rows than the declared limit."""

    code = "too_large"


class NotFound(InputError):
    """A name that does not exist; offers the nearest, and lists those that do."""

    code = "not_found"

    def __init__(self, kind: str, name: str, *, known: list[str] | None = None, field: str | None = None) -> None:
        if len(name) > _LONGEST_NAME:  # whoever asks may be a stranger, and looking for the nearest costs by the letter
            name = f"{name[:_LONGEST_NAME]}…"
        listing = "" if known is None else names_near(name, known)
        super().__init__(f"unknown {kind} {name!r}{listing}", field=field)


class Conflict(InputError):
    """Another writer was first, or the same key came with another body."""

    code = "conflict"


class AccessError(HeadwayError):
    """Identity or permission is missing."""

    code = "access"


class Unauthenticated(AccessError):
    """No identity, or one that does not verify."""

    code = "unauthenticated"


class Forbidden(AccessError):
    """The identity is good, the right is missing."""

    code = "forbidden"


class CapacityError(HeadwayError):
    """Not now; `retry_after_s` says when to come back."""

    code = "capacity"

    def __init__(self, message: str, *, retry_after_s: float, hint: str | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, hint=hint)


class QuotaExceeded(CapacityError):
    """The caller's own rate limit."""

    code = "quota_exceeded"


class Unavailable(CapacityError):
    """Shed, not ready, or a dependency is down."""

    code = "unavailable"


class EvidenceError(HeadwayError):
    """Something signed, hashed or chained does not hold."""

    code = "evidence"


class Tampered(EvidenceError):
    """The bytes differ from what was signed or chained."""

    code = "tampered"


class NotSigned(EvidenceError):
    """A required signature is missing; `missing` names the roles."""

    code = "not_signed"

    def __init__(self, message: str, *, missing: tuple[str, ...] = (), hint: str | None = None) -> None:
        self.missing = missing
        super().__init__(message, hint=hint)


class GateFailed(EvidenceError):
    """A candidate is below a declared floor."""

    code = "gate_failed"


class DefinitionError(HeadwayError):
    """A file the team wrote is wrong: names file, field path and expected form."""

    code = "definition"

    def __init__(
        self, message: str, *, file: str | None = None, field: str | None = None, expected: str | None = None
    ) -> None:
        self.file = file
        self.expected = expected
        where = f"{file}: " if file else ""
        form = f"; expected {expected}" if expected else ""
        place = f"{field}: " if field else ""
        super().__init__(f"{where}{place}{message}{form}")
        self.field = field

    def __str__(self) -> str:
        """The message already carries file and field."""
        return self.message


class PlatformError(HeadwayError):
    """The platform's own state or services."""

    code = "platform"


class CorruptState(PlatformError):
    """A state file cannot be read; nothing is deleted, the hint says how to recover."""

    code = "corrupt_state"


class ServiceFailed(PlatformError):
    """A service did not start, or stopped."""

    code = "service_failed"
