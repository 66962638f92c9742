"""The packages that train: what `requirements.lock` pins, held against what is really installed.

A version names the hash of the lock as the packages that made it. That is only true where they are the ones that run.
"""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

import msgspec

from headway.core.canonical import sha256
from headway.core.errors import DefinitionError, ServiceFailed

LOCK_FILE = "requirements.lock"
LOCK = "HEADWAY_LOCK_SHA256"
"""Names, in the environment of a training job's processes, the lock that they are to run under."""
UNKNOWN = ""
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;#]+)(.*)$")
_DEVELOPMENT = "# --- development"
_SHOWN = 5


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed lock."""

    sha256: str
    pins: dict[str, str]
    """Package → version."""
    development: frozenset[str] = frozenset()
    """Packages below the heading of development: they may be missing where models are trained."""


def read_lock(project: Path) -> Lock | None:
    """Return the project's lock, None where it has none; DefinitionError names a line that pins nothing."""
    path = project / LOCK_FILE
    if not path.is_file():
        return None
    data = path.read_bytes()
    pins: dict[str, str] = {}
    development: set[str] = set()
    below = False
    for number, line in enumerate(data.decode().splitlines(), start=1):
        if line.startswith("# ---"):
            below = line.startswith(_DEVELOPMENT)
        if not line.strip() or line.startswith("#"):
            continue
        pin = _PIN.match(line)
        if pin is None:
            raise DefinitionError(
                f"{line.strip()!r} pins no version", file=LOCK_FILE, field=f"line {number}", expected="name==version"
            )
        if "platform_system" in pin[3]:  # a package of one system may be missing on another
            development.add(pin[1])
        pins[pin[1]] = pin[2]
        if below:
            development.add(pin[1])
    return Lock(sha256=sha256(data), pins=pins, development=frozenset(development))


def installed(names: frozenset[str]) -> dict[str, str]:
    """Return package → installed version of those that are there; a build tag (`+cpu`) is no part of a version."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def differences(lock: Lock) -> list[str]:
    """Return `name 1.0 (locked 1.1)` for each package that is not as locked, sorted."""
    there = installed(frozenset(lock.pins))
    found = []
    for name, pinned in sorted(lock.pins.items()):
        version = there.get(name)
        if version is None and name not in lock.development:
            found.append(f"{name} is missing (locked {pinned})")
        elif version is not None and version != pinned.partition("+")[0]:
            found.append(f"{name} {version} (locked {pinned})")
    return found


def require_locked(project: Path, expected: str | None = None) -> str:
    """Return the hash of the lock that this process runs under, empty where the project has none.

    Args:
        project: Folder of `requirements.lock`.
        expected: Hash that whoever started this process saw; None: nobody said.

    Raises ServiceFailed where the lock is another one, or where installed packages differ from it: it names them.
    """
    lock = read_lock(project)
    found = UNKNOWN if lock is None else lock.sha256
    if expected is not None and expected != found:
        raise ServiceFailed(
            f"{LOCK_FILE} is not the one of whoever asked for the training: "
            f"{expected[:12] or 'none'} there, {found[:12] or 'none'} here",
            hint="train again",
        )
    wrong = [] if lock is None else differences(lock)
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ServiceFailed(
            f"installed packages differ from {LOCK_FILE}: {', '.join(wrong[:_SHOWN])}{more}",
            hint=f"pip install -r {LOCK_FILE}, then train again",
        )
    return found


def require_asked() -> None:
    """Check, in a worker of a training job, that its machine has the packages that the job asks for."""
    asked, project = os.environ.get(LOCK), os.environ.get("HEADWAY_PROJECT")
    if asked is not None and project is not None:
        require_locked(Path(project), asked)
