from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from headway.core.canonical import canonical
from headway.core.clock import ManualClock, SystemClock
from headway.core.errors import EvidenceError, InvalidValue, NotSigned, PlatformError, Tampered
from headway.core.settings import Settings
from headway.governance.audit import AuditLog, MemoryAudit, audit_log, verify_chains
from headway.governance.audit_event import GENESIS, AuditEvent, chain_event, parse_event
from headway.governance.audit_verify import read_events
from headway.governance.signing import Signer, TrustRoot, generate_key
from tests.governance.conftest import NOW

ACT = {"actor": "ann", "kind": "human", "resource": "r", "purpose": "tests", "outcome": "done"}


def act(log: AuditLog | MemoryAudit, action: str = "act") -> AuditEvent:
    return log.append(action=action, **ACT)


def written(folder: Path, count: int, writer: str = "cli", signer: Signer | None = None) -> AuditLog:
    log = AuditLog(folder, writer, ManualClock(NOW), signer=signer)
    for number in range(count):
        act(log, f"act{number}")
    return log


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def rehashed(lines: list[bytes], start: int, action: str) -> list[bytes]:
    """Forge: change the event at `start` and recompute every hash after it."""
    events = [parse_event(line[:-1], where="") for line in lines]
    last = events[start - 1] if start else None
    out = lines[:start]
    for event in events[start:]:
        fields = msgspec.structs.asdict(event)
        forged = chain_event(
            last,
            **{
                name: fields[name]
                for name in ("writer", "time", "actor", "kind", "resource", "purpose", "outcome", "refs")
            },
            action=action if event.seq == start else event.action,
        )
        out.append(forged.to_line())
        last = forged
    return out


def test_events_form_a_chain(folder: Path) -> None:
    written(folder, 3)
    first, second, third = read_events(folder)
    assert (first.seq, first.prev, first.writer, first.time) == (0, GENESIS, "cli", NOW)
    assert (second.prev, third.prev) == (first.hash, second.hash)
    report = verify_chains(folder)
    assert report.ok
    assert (report.writers, report.events) == (1, 3)
    assert (folder / "cli.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_new_log_goes_on_where_the_chain_ends(folder: Path) -> None:
    written(folder, 2)
    assert act(AuditLog(folder, "cli", ManualClock(NOW))).seq == 2
    assert act(AuditLog(folder, "other", ManualClock(NOW))).seq == 0
    assert verify_chains(folder).ok


Change = Callable[[list[bytes]], list[bytes]]
ATTACKS: dict[str, tuple[Change, int]] = {
    "a changed byte": (lambda lines: [*lines[:2], lines[2].replace(b"ann", b"bob"), *lines[3:]], 3),
    "a removed line": (lambda lines: [*lines[:2], *lines[3:]], 3),
    "a doubled line": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
    "swapped lines": (lambda lines: [*lines[:1], lines[2], lines[1], *lines[3:]], 2),
    "a removed first line": (lambda lines: lines[1:], 1),
    "a cut tail": (lambda lines: lines[:-1], 0),
    "a longer cut tail": (lambda lines: lines[:2], 0),
    "an emptied file": (lambda _: [], 0),
    "a re-hashed tail": (lambda lines: rehashed(lines, 3, "harmless"), 5),
    "a re-hashed last event": (lambda lines: rehashed(lines, 4, "harmless"), 5),
    "a chain forged from the start": (lambda lines: rehashed(lines, 0, "harmless"), 5),
    "a line of garbage": (lambda lines: [*lines[:2], b"{}\n", *lines[2:]], 3),
    "an empty line": (lambda lines: [*lines[:2], b"\n", *lines[2:]], 3),
    "another spelling": (lambda lines: [json.dumps(json.loads(lines[0])).encode() + b"\n", *lines[1:]], 1),
    "a key twice": (lambda lines: [lines[0].replace(b'{"action"', b'{"action":"x","action"'), *lines[1:]], 1),
}


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_is_named_by_file_and_line(folder: Path, name: str) -> None:
    written(folder, 5)
    change, line = ATTACKS[name]
    rewrite(folder / "cli.jsonl", change)
    problems = verify_chains(folder).problems
    assert [(problem.file, problem.line) for problem in problems] == [("cli.jsonl", line)]


@pytest.mark.parametrize("name", ["a cut tail", "a longer cut tail", "an emptied file", "a re-hashed last event"])
def test_nobody_builds_on_a_chain_whose_end_was_changed(folder: Path, name: str) -> None:
    log = written(folder, 5)
    rewrite(folder / "cli.jsonl", ATTACKS[name][0])
    before = (folder / "cli.jsonl").read_bytes()
    with pytest.raises(Tampered):
        act(log)
    assert (folder / "cli.jsonl").read_bytes() == before


def test_a_deleted_chain_is_missed(folder: Path) -> None:
    log = written(folder, 2)
    (folder / "cli.jsonl").unlink()
    assert [problem.what for problem in verify_chains(folder).problems] == [
        "the chain is gone, its anchor is still there"
    ]
    with pytest.raises(Tampered):
        act(log)


def test_a_deleted_folder_is_missed(folder: Path) -> None:
    written(folder, 2)
    shutil.rmtree(folder)
    assert not verify_chains(folder).ok


def test_a_deleted_or_broken_anchor_is_missed(folder: Path) -> None:
    log = written(folder, 3)
    anchor = folder.with_name("audit-anchors") / "cli.anchor.json"
    anchor.unlink()
    assert not verify_chains(folder).ok
    with pytest.raises(Tampered):
        act(log)
    anchor.write_bytes(b"{}")
    assert not verify_chains(folder).ok
    with pytest.raises(Tampered):
        act(log)


def test_events_added_past_the_log_are_noticed(folder: Path) -> None:
    log = written(folder, 3)
    path = folder / "cli.jsonl"
    last = parse_event(path.read_bytes().splitlines()[-1], where="")
    for _ in range(2):
        last = chain_event(last, writer="cli", time=NOW, action="x", refs=(), **ACT)
        path.write_bytes(path.read_bytes() + last.to_line())
    assert "beyond the anchor" in verify_chains(folder).problems[0].what
    with pytest.raises(Tampered):
        act(log)


def test_one_writers_chain_cannot_stand_in_for_another(folder: Path) -> None:
    written(folder, 3)
    written(folder, 3, "other")
    shutil.copy(folder / "cli.jsonl", folder / "other.jsonl")
    report = verify_chains(folder)
    assert [problem.file for problem in report.problems] == ["other.jsonl"]


@pytest.mark.parametrize("name", [".hidden.jsonl", "notes.txt", ".git"])
def test_a_stray_file_is_a_problem(folder: Path, name: str) -> None:
    written(folder, 1)
    (folder / name).write_text("x")
    assert [problem.file for problem in verify_chains(folder).problems] == [name]


def test_links_and_pipes_are_not_followed(folder: Path, tmp_path: Path) -> None:
    log = written(folder, 2)
    path = folder / "cli.jsonl"
    path.rename(tmp_path / "elsewhere.jsonl")
    path.symlink_to(tmp_path / "elsewhere.jsonl")
    assert not verify_chains(folder).ok
    with pytest.raises(PlatformError):
        act(log)
    path.unlink()
    os.mkfifo(path)
    assert not verify_chains(folder).ok
    with pytest.raises(Tampered):
        act(log)


def crash_between_chain_and_anchor(folder: Path, log: AuditLog) -> None:
    anchor = folder.with_name("audit-anchors") / "cli.anchor.json"
    before = anchor.read_bytes()
    act(log)
    anchor.write_bytes(before)


def test_a_crash_between_chain_and_anchor_is_no_tampering(folder: Path) -> None:
    log = written(folder, 2)
    for expected in (3, 5):
        crash_between_chain_and_anchor(folder, log)
        assert verify_chains(folder).ok
        assert act(log).seq == expected
    assert verify_chains(folder).ok


def test_a_torn_write_is_kept_aside_and_the_chain_goes_on(folder: Path) -> None:
    log = written(folder, 2)
    with (folder / "cli.jsonl").open("ab") as file:
        file.write(b'{"action":"half')
    report = verify_chains(folder)
    assert report.ok
    assert "unfinished" in report.notes[0]
    assert act(log).seq == 2
    report = verify_chains(folder)
    assert report.ok
    assert report.events == 3
    assert [path.read_bytes() for path in folder.glob("*.torn")] == [b'{"action":"half']


def test_a_torn_acknowledged_event_is_tampering(folder: Path) -> None:
    log = written(folder, 3)
    path = folder / "cli.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert not verify_chains(folder).ok
    with pytest.raises(Tampered):
        act(log)


def test_a_full_disk_is_an_error_and_leaves_the_chain_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = written(folder, 2)
    real = os.write

    def short(handle: int, data: bytes) -> int:
        return real(handle, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(PlatformError, match="cannot be written"):
        act(log)
    monkeypatch.undo()
    assert verify_chains(folder).events == 2
    assert act(log).seq == 2


def test_signed_anchors_are_believed_and_others_are_not(folder: Path, settings: Settings, trust: TrustRoot) -> None:
    log = audit_log(settings, "cli", ManualClock(NOW))
    act(log)
    act(log)
    home_audit = settings.home / "audit"
    assert verify_chains(home_audit, trust=trust).ok
    anchor = settings.home / "audit-anchors" / "cli.anchor.json"
    signed = anchor.read_bytes()
    rewrite(home_audit / "cli.jsonl", lambda lines: lines[:1])
    envelope = json.loads(signed)
    first = parse_event((home_audit / "cli.jsonl").read_bytes()[:-1], where="")
    import base64

    payload = canonical({"writer": "cli", "seq": 0, "hash": first.hash, "time": NOW})
    envelope["payload"] = base64.b64encode(payload).decode()
    anchor.write_text(json.dumps(envelope))
    assert "does not hold" in verify_chains(home_audit, trust=trust).problems[0].what
    with pytest.raises(Tampered):
        act(log)
    envelope["signatures"] = []
    anchor.write_text(json.dumps(envelope))
    assert verify_chains(home_audit).ok, "without a trust root an unsigned anchor is all there is"
    assert "not signed" in verify_chains(home_audit, trust=trust).problems[0].what
    with pytest.raises(NotSigned):
        act(log)


def test_an_anchor_by_a_strangers_key_is_refused(folder: Path, tmp_path: Path, trust: TrustRoot) -> None:
    generate_key(tmp_path / "stranger.pem")
    written(folder, 2, signer=Signer(tmp_path / "stranger.pem"))
    assert not verify_chains(folder, trust=trust).ok


def test_without_the_anchor_key_the_log_still_works(tmp_path: Path) -> None:
    from headway.core.settings import load_settings

    log = audit_log(load_settings(home=tmp_path), "cli", ManualClock(NOW))
    act(log)
    assert verify_chains(tmp_path / "audit").ok


@pytest.mark.parametrize("writer", ["", "../x", "a/b", ".hidden", "A", "x" * 101, "a.jsonl"])
def test_a_writer_is_no_path(folder: Path, writer: str) -> None:
    with pytest.raises(InvalidValue):
        AuditLog(folder, writer, ManualClock(NOW))


@pytest.mark.parametrize("text", ["", "a\nb", "\x00", "\ud800", "x" * 2001])
def test_what_cannot_be_recorded_is_refused(folder: Path, text: str) -> None:
    log = AuditLog(folder, "cli", ManualClock(NOW))
    for name in ACT:
        with pytest.raises(InvalidValue) as caught:
            log.append(action="x", **{**ACT, name: text})
        assert caught.value.field == name
    with pytest.raises(InvalidValue):
        log.append(action="x", refs=["0" * 64, text], **ACT)
    assert verify_chains(folder).events == 0


def test_threads_share_a_writer(folder: Path) -> None:
    log = AuditLog(folder, "cli", SystemClock())
    with ThreadPoolExecutor(8) as pool:
        events = list(pool.map(lambda number: act(log, f"a{number}"), range(40)))
    assert sorted(event.seq for event in events) == list(range(40))
    assert verify_chains(folder).events == 40


def _append_many(folder: str, count: int) -> None:
    log = AuditLog(Path(folder), "shared", SystemClock())
    for number in range(count):
        act(log, f"a{number}")


def test_processes_share_a_writer(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(str(folder), 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    report = verify_chains(folder)
    assert report.ok
    assert report.events == 60


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(data=st.data())
def test_no_edit_of_the_file_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("audit") / "audit"
    written(folder, 3)
    path = folder / "cli.jsonl"
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 400)))
    edited = whole[:start] + data.draw(st.binary(max_size=4)) + whole[end:]
    path.write_bytes(edited)
    report = verify_chains(folder)
    appended_only = edited.startswith(whole) and b"\n" not in edited[len(whole) :]
    assert report.ok == appended_only
    if appended_only and edited != whole:
        assert report.notes


@given(st.lists(st.tuples(*[st.text(min_size=1, max_size=20).filter(str.isprintable)] * 3), max_size=5))
def test_memory_and_lines_hold_the_same_chain(acts: list[tuple[str, str, str]]) -> None:
    memory = MemoryAudit(ManualClock(NOW))
    for actor, action, resource in acts:
        memory.append(actor=actor, kind="ci", action=action, resource=resource, purpose="p", outcome="done")
    previous = GENESIS
    for event in memory.events:
        assert parse_event(event.to_line()[:-1], where="") == event
        assert event.prev == previous
        previous = event.hash


def test_an_event_with_another_hash_is_refused() -> None:
    memory = MemoryAudit()
    event = act(memory)
    forged = msgspec.structs.replace(event, actor="eve")
    with pytest.raises(EvidenceError):
        parse_event(forged.to_line()[:-1], where="x")
