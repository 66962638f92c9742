"""Cards of registered versions: made on demand from what is signed, and kept when a version is registered."""

from __future__ import annotations

from pathlib import Path

from headway.cluster.compose import Installation
from headway.core.errors import DefinitionError, EvidenceError, InvalidValue, NotFound
from headway.core.progress import Progress
from headway.core.routing import VersionRef
from headway.core.types import Principal
from headway.governance.contract import LoadedContract
from headway.training import card_files
from headway.training.card import Card


def card_of(at: Installation, use_case: str, version: str, principal: Principal) -> Card:
    """Return the card of a version or alias; EvidenceError where the version is not as signed."""
    found = at.registry.resolve(at.project.require(use_case), version, principal)
    return _read(at, use_case, found.version, found.path)


def named(at: Installation, version: str, use_case: str | None) -> tuple[str, str]:
    """Return use case and version of `3`, `@champion` or `fraud/3`; InvalidValue where the use case is not said."""
    case, _, rest = version.rpartition("/")
    if case and use_case is not None and case != use_case:
        raise InvalidValue("VERSION", f"names {case!r}, --use-case {use_case!r}", hint="say one of them")
    said = use_case or case
    if not said:
        known = at.project.use_cases()
        if len(known) != 1:
            raise InvalidValue("--use-case", "which one?", hint=f"one of {', '.join(known)}")
        said = known[0]
    return at.project.require(said), rest


def keep_card(at: Installation, use_case: str, ref: VersionRef, worker: Principal, progress: Progress) -> None:
    """Keep the card of a registered version, once; one that cannot be kept does not undo the registration."""
    if (card_files.cards_folder(at.settings.home, use_case) / f"{ref.version}.json").exists():
        return
    with progress.stage("card") as stage:
        try:
            card = _read(at, use_case, ref.version, Path(ref.path))
            files = card_files.keep_card(card, at.settings.home, at.registry, worker)
        except Exception as error:  # the version is registered, whatever a picture of it meets
            stage.note(f"not kept: {error}; headway models card {use_case}/{ref.version} makes it")
        else:
            stage.note(str(files.html))


def _read(at: Installation, use_case: str, version: str, folder: Path) -> Card:
    contract: LoadedContract | None = None
    notes: tuple[str, ...] = ()
    try:
        contract = at.contract(use_case)
    except (EvidenceError, DefinitionError, NotFound) as error:
        notes = (f"The contract cannot be shown: {error}",)
    try:
        service = at.job(use_case).service
    except (DefinitionError, NotFound) as error:
        service, notes = None, (*notes, f"Features are not told in words: {error}")
    return card_files.read_card(
        folder, at.trust, name=use_case, version=version, clock=at.clock, contract=contract, service=service,
        notes=notes,
    )  # fmt: skip
