"""Reads a card from a version whose signature holds, and keeps it in the home and as an artefact of the run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.core.clock import Clock
from headway.core.errors import ServiceFailed, Tampered
from headway.core.types import Matrix, Principal
from headway.features.catalogue.card import meanings
from headway.features.definitions import FeatureService
from headway.features.kernel import kernel_sha256
from headway.governance.contract import LoadedContract
from headway.governance.files import PUBLIC, write_atomic
from headway.governance.registry import Registry
from headway.governance.signing import Envelope, TrustRoot
from headway.governance.statement import ModelStatement, read_file, read_statement, verify_version
from headway.models.artefact import DEFINITION_FILE, PROFILE_FILE, SCHEMA_FILE, load_artefact, read_definition
from headway.models.explain import Explainer, TreeShap, open_explainer
from headway.models.probe import WARMUP_FILE
from headway.training.card import Card, make_card
from headway.training.card_features import Importance
from headway.training.card_page import card_page

RUN_FOLDER = "card"
"""Artefact folder of the run; the signed files lie in another."""
_SHOWN_APART = (DEFINITION_FILE, PROFILE_FILE, SCHEMA_FILE, WARMUP_FILE, "model.json")
_LARGEST = 1 << 18
"""Bytes of a signed document that is shown whole."""


@dataclass(frozen=True, kw_only=True)
class CardFiles:
    """Where a card was written."""

    html: Path
    json: Path


def read_card(
    folder: Path,
    trust: TrustRoot,
    *,
    name: str,
    version: str,
    clock: Clock,
    contract: LoadedContract | None = None,
    service: FeatureService | None = None,
    notes: tuple[str, ...] = (),
    trial: bool = True,
) -> Card:
    """Return the card of a version, verified first; EvidenceError where its signature does not hold.

    `service` tells features in words, where it is still the code that the version was trained with. `trial` is False
    only where this very version was loaded before.
    """
    statement = verify_version(folder, trust, name=name, version=version, clock=clock)
    envelope = read_statement(folder)
    artefact = load_artefact(folder, statement, trial=trial)
    documents, unread = _documents(folder, statement)
    words: Mapping[str, str] = {}
    if service is not None and kernel_sha256(service) == statement.kernel_sha256:
        words = meanings(service)
    elif service is not None:
        unread = (*unread, "The feature code changed since the version was trained: features are not told in words.")
    importance: Importance | None = None
    try:
        importance = _importance(open_explainer(folder, artefact, trial=trial), artefact.warmup.matrix())
    except ServiceFailed as error:
        unread = (*unread, f"What features matter is not computed: {error}")
    return make_card(
        statement,
        statement_sha256=envelope.payload_sha256,
        key_ids=[signature.keyid for signature in envelope.signatures],
        profile=artefact.profile,
        schema=artefact.input_schema,
        definition=read_definition(folder, statement),
        importance=importance,
        contract=contract,
        meanings=words,
        documents=documents,
        notes=(*notes, *unread),
    )


def _importance(explainer: Explainer, warmup: Matrix) -> Importance | None:
    rows = warmup[~np.isnan(warmup).all(axis=1)]  # one of them has no values at all
    if not len(rows):
        return None
    impact = np.abs(explainer.explain(rows).contributions).mean(axis=0)
    gain: tuple[float, ...] | None = None
    if isinstance(explainer, TreeShap):
        gains = explainer.total_gain(rows.shape[1])
        gain = tuple((gains / (float(gains.sum()) or 1.0)).tolist())
    return Importance(
        method=explainer.method, unit=explainer.unit, rows=len(rows), impact=tuple(impact.tolist()), gain=gain
    )


def card_json(card: Card) -> bytes:
    """Return the card for machines."""
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"


def write_card(card: Card, folder: Path) -> CardFiles:
    """Write page and JSON as `<version>.html` and `<version>.json` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = CardFiles(html=folder / f"{card.version}.html", json=folder / f"{card.version}.json")
    write_atomic(files.html, card_page(card).encode(), mode=PUBLIC)
    write_atomic(files.json, card_json(card), mode=PUBLIC)
    return files


def cards_folder(home: Path, use_case: str) -> Path:
    """Return where an installation keeps the cards of a use case."""
    return home / "cards" / use_case


def keep_card(card: Card, home: Path, registry: Registry, principal: Principal) -> CardFiles:
    """Write a card into the home, and into the run of its version."""
    files = write_card(card, cards_folder(home, card.use_case))
    with tempfile.TemporaryDirectory() as folder:
        for name, source in (("card.html", files.html), ("card.json", files.json)):
            (Path(folder) / name).write_bytes(source.read_bytes())
        registry.attach(card.use_case, card.version, Path(folder), RUN_FOLDER, principal)
    return files


def _documents(folder: Path, statement: ModelStatement) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what other signed JSON files hold, envelopes opened, and what could not be shown."""
    found: dict[str, Any] = {}
    notes = []
    for entry in statement.files:
        if not entry.path.endswith(".json") or entry.path in _SHOWN_APART:
            continue
        if entry.size > _LARGEST:
            notes.append(f"{entry.path} is signed and too large to show: {entry.size:,} bytes.")
            continue
        data = read_file(folder, statement, entry.path)
        try:
            if entry.path.endswith(".dsse.json"):  # the statement has its hash: that it is as signed is known
                data = Envelope.from_json(data).payload_bytes()
            found[entry.path] = msgspec.json.decode(data)
        except (msgspec.MsgspecError, Tampered, RecursionError):
            notes.append(f"{entry.path} is signed and no JSON.")
    return found, tuple(notes)
