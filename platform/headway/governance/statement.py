"""The signed statement of a model version (INTERFACES §6), verified in every replica before any model file is parsed.

Parsers of model files can be crashed or worse by ten bytes, so nothing unverified reaches them. The statement lists the
exact set of files with sizes and hashes and names model and version: an added file, a link, or an old version under a
new name is refused like a changed byte.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec

from headway.core.canonical import canonical
from headway.core.clock import Clock
from headway.core.errors import InvalidValue, NotSigned, Tampered, TooLarge
from headway.core.times import MINUTE, format_time
from headway.governance.audit_event import Count, Hash
from headway.governance.files import PUBLIC, open_regular, read_regular, write_atomic
from headway.governance.keys import MODEL_SIGN
from headway.governance.signing import MAX_ENVELOPE, Envelope, Signer, TrustRoot

STATEMENT = "statement.dsse.json"
PAYLOAD_TYPE = "application/vnd.headway.model-statement+json"
_SKEW = 5 * MINUTE
"""How far the signer's clock may run ahead."""
_MAX_FILES = 1_000
_MAX_DEPTH = 8
_CHUNK = 2**20
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the version."""

    path: str
    """Relative, with `/`."""
    size: Count
    """Bytes."""
    sha256: Hash


class MetricValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured metric and its interval."""

    value: float
    low: float | None = None
    high: float | None = None


class GateOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One floor or ceiling and how the candidate stood to it."""

    metric: str
    value: float | None
    """None: passed without a measure, as `detail` says."""
    floor: float | None = None
    ceiling: float | None = None
    passed: bool
    source: str = ""
    """contract | job | champion <version>."""
    gate: str = "floor"
    """Kind of gate."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval that was held against the bound."""
    part: str = ""
    """Segment or group of rows."""
    detail: str = ""


class ColumnSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one input column may hold."""

    type: str
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    nulls: bool = True


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the version was measured and what it needs."""

    profile: str
    """Machine that it was measured on, in words."""
    tier: str
    """cpu | gpu | edge."""
    minimum_memory_bytes: Count


class ModelStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is claimed about a model version, signed as one."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    version: Annotated[str, msgspec.Meta(min_length=1)]
    created: Count
    """UTC microseconds."""
    expires: Count
    """UTC microseconds; from then on it must not be loaded."""
    run_id: str
    git_sha: str
    lock_sha256: str
    contract_sha256: Hash
    kernel_sha256: Hash
    """Feature code."""
    snapshots: dict[str, int]
    """Lake table → snapshot id."""
    feature_service: str
    metrics: dict[str, MetricValue]
    gates: tuple[GateOutcome, ...]
    reference_profile_sha256: Hash
    input_schema: dict[str, ColumnSchema]
    hardware: Hardware
    backend: str
    files: tuple[FileEntry, ...]
    """Exactly these, besides the statement itself."""
    gate_report_sha256: str = ""
    """Payload of the signed report of all gates, `gates.dsse.json`."""
    requested_by: str = ""
    """Subject who asked for the training, who cannot approve it for production; empty in older versions."""


def sign_version(folder: Path, statement_fields: Mapping[str, Any], signer: Signer) -> Envelope:
    """Hash the files of `folder`, sign the statement, write `statement.dsse.json` and return the envelope.

    `statement_fields` are the fields of ModelStatement without `files`; a plain number is a metric without interval.
    Raises InvalidValue naming a field that is missing or wrong, Tampered for files that must not be in a version.
    """
    fields = dict(statement_fields)
    if "files" in fields:
        raise InvalidValue("files", "is computed from the folder", hint="leave it out")
    fields["metrics"] = {
        name: {"value": value} if isinstance(value, int | float) else value
        for name, value in dict(fields.get("metrics", {})).items()
    }
    listed = [path for path in _files(folder) if path != STATEMENT]
    fields["files"] = tuple(_entry(folder, path) for path in listed)
    try:
        statement = msgspec.convert(msgspec.to_builtins(fields), ModelStatement)
        payload = canonical(msgspec.to_builtins(statement))
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise InvalidValue("statement", str(error), hint="see governance.statement.ModelStatement") from error
    if not statement.files:
        raise InvalidValue("files", "the folder is empty", hint="write the artefact before signing it")
    if statement.expires <= statement.created:
        raise InvalidValue("expires", "is not after created")
    envelope = signer.sign(PAYLOAD_TYPE, payload)
    write_atomic(folder / STATEMENT, envelope.to_json(), mode=PUBLIC)
    return envelope


def verify_version(
    folder: Path,
    trust: TrustRoot,
    *,
    name: str,
    version: str | None = None,
    clock: Clock,
    statement_sha256: str | None = None,
) -> ModelStatement:
    """Return the statement of a version whose every byte is as signed.

    `statement_sha256` (from the routing record) pins one statement, so that another validly signed one is refused too.

    Raises:
        NotSigned: no statement, or none by a key trusted for `model:sign`.
        Tampered: anything else that does not hold; the message says what.
    """
    envelope = read_statement(folder)
    if len(envelope.signatures) > 1:
        raise Tampered(f"{folder.name}: {len(envelope.signatures)} signatures; a version is signed once")
    payload = trust.verify(envelope, PAYLOAD_TYPE, MODEL_SIGN)
    if statement_sha256 is not None and hashlib.sha256(payload).hexdigest() != statement_sha256:
        raise Tampered(f"{folder.name}: validly signed, but not the statement that routing names")
    statement = _parsed(payload, folder.name)
    if statement.name != name or (version is not None and statement.version != version):
        wanted = name if version is None else f"{name} {version}"
        raise Tampered(f"{folder.name}: signed as {statement.name} {statement.version}, not as {wanted}")
    now = clock.now()
    if statement.created > now + _SKEW:
        raise Tampered(f"{folder.name}: signed in the future, {format_time(statement.created)}")
    if now >= statement.expires:
        raise Tampered(f"{folder.name}: expired {format_time(statement.expires)}", hint="train and sign a new version")
    try:
        _verify_files(folder, statement)
    except OSError as error:
        raise Tampered(f"{folder.name}: a file cannot be read: {error.strerror}") from error
    return statement


def read_statement(folder: Path) -> Envelope:
    """Return the envelope of a version, unverified; NotSigned if there is none."""
    try:
        return Envelope.from_json(read_regular(folder / STATEMENT, limit=MAX_ENVELOPE))
    except TooLarge as error:
        raise Tampered(f"{folder.name}: {error.message}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotSigned(
            f"{folder.name}: no signed statement", missing=(MODEL_SIGN,), hint="only registered versions can be loaded"
        ) from error


def parse_statement(envelope: Envelope) -> ModelStatement:
    """Return what an envelope claims, unverified: for tags and listings, never for loading."""
    return _parsed(envelope.payload_bytes(), "the version")


def read_file(folder: Path, statement: ModelStatement, path: str) -> bytes:
    """Return a file's bytes, hashed as read: what is parsed is what was verified, even if the disk changes."""
    entry = next((entry for entry in statement.files if entry.path == path), None)
    if entry is None:
        raise Tampered(f"{path} is not a file of {statement.name} {statement.version}")
    try:
        data = read_regular(folder / path, limit=entry.size)
    except OSError as error:
        raise Tampered(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise Tampered(f"{path} differs from what was signed")
    return data


def _parsed(payload: bytes, what: str) -> ModelStatement:
    try:
        return msgspec.json.decode(payload, type=ModelStatement)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Tampered(f"{what}: the statement cannot be parsed: {error}") from error


def _verify_files(folder: Path, statement: ModelStatement) -> None:
    signed = {entry.path: entry for entry in statement.files}
    if len({path.casefold() for path in signed}) != len(statement.files):
        raise Tampered(f"{folder.name}: the statement lists a file twice, or two that differ in case only")
    found = set(_files(folder)) - {STATEMENT}
    for words, paths in (("missing", sorted(signed.keys() - found)), ("not signed", sorted(found - signed.keys()))):
        if paths:
            raise Tampered(f"{folder.name}: {words}: {', '.join(paths[:5])}")
    for path, entry in sorted(signed.items()):
        if _entry(folder, path) != entry:
            raise Tampered(f"{folder.name}: {path} differs from what was signed")


def _files(folder: Path) -> list[str]:
    """Return the relative paths of all files, sorted; Tampered for anything that a version must not hold."""
    if folder.is_symlink() or not folder.is_dir():
        raise Tampered(f"{folder.name} is not a plain folder")
    paths = sorted(islice(_walk(folder, PurePosixPath()), _MAX_FILES + 1))
    if len(paths) > _MAX_FILES:
        raise Tampered(f"{folder.name} holds more than {_MAX_FILES} files")
    if len({path.casefold() for path in paths}) != len(paths):
        raise Tampered(f"{folder.name} holds two files whose names differ in case only")
    return paths


def _walk(folder: Path, prefix: PurePosixPath) -> Iterator[str]:
    if len(prefix.parts) > _MAX_DEPTH:
        raise Tampered(f"{prefix} is nested deeper than {_MAX_DEPTH} folders")
    with os.scandir(folder) as entries:
        children = list(islice(entries, _MAX_FILES + 1))
    if not children and prefix.parts:
        raise Tampered(f"{prefix} is an empty folder, which no version has")
    for child in children:
        place = prefix / child.name
        mode = child.stat(follow_symlinks=False).st_mode
        if _PART.fullmatch(child.name) is None:
            raise Tampered(f"{str(place)!r} is hidden or has a name that no version file has")
        if stat.S_ISDIR(mode):
            yield from _walk(folder / child.name, place)
        elif stat.S_ISREG(mode):
            yield str(place)
        else:
            raise Tampered(f"{place} is a link or a special file")


def _entry(folder: Path, path: str) -> FileEntry:
    digest = hashlib.sha256()
    size = 0
    with os.fdopen(open_regular(folder / path), "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(path=path, size=size, sha256=digest.hexdigest())
