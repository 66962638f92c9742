"""A job's stages are drawn, its errors raised, and it never outlives whoever asked for it."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headway.cluster import training_job
from headway.cluster.compose import Installation
from headway.cluster.training_job import JobRequest, environment, run_job, runtime_env
from headway.core.errors import GateFailed, ServiceFailed
from headway.core.progress import RecordedProgress
from headway.core.settings import Settings

REQUEST = JobRequest(act="train", use_case="shop", home="h", project="p", asked_by="ann", lock_sha256="a" * 64)
SAYS = """
import json, sys
request = json.loads(sys.stdin.readline())
def say(**line):
    print(json.dumps(line), flush=True)
"""


@pytest.fixture
def at(settings: Settings) -> Installation:
    return cast(Installation, SimpleNamespace(settings=settings))


def job(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a script stand in for the driver, which needs a whole platform."""
    monkeypatch.setattr(training_job, "COMMAND", (sys.executable, "-c", SAYS + textwrap.dedent(script)))


def test_stages_are_drawn_and_the_result_is_returned(at: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    job(
        monkeypatch,
        """
        import os
        say(event="begin", stage="dataset")
        print("a library prints")
        say(event="note", stage="dataset", text=request["use_case"])
        say(event="end", stage="dataset", failed=False)
        say(event="result", result=os.environ["HEADWAY_LOCK_SHA256"])
        """,
    )
    progress = RecordedProgress()
    assert run_job(at, REQUEST, progress) == b"a" * 64
    assert [(stage.name, stage.notes) for stage in progress.stages] == [("dataset", ["shop"])]


def test_an_error_there_is_raised_here(at: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    error: dict[str, Any] = {
        "kind": "GateFailed",
        "message": "shop 1: too low",
        "field": None,
        "hint": "look",
        "state": {},
    }
    job(monkeypatch, f"say(event='error', error={error!r})")
    with pytest.raises(GateFailed, match="shop 1: too low"):
        run_job(at, REQUEST, RecordedProgress())


def test_a_job_that_dies_shows_its_log(at: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    job(monkeypatch, "say(event='begin', stage='train'); sys.exit('out of memory')")
    with pytest.raises(ServiceFailed, match=r"ended with 1, log .*train-shop\.log:\s+out of memory"):
        run_job(at, REQUEST, RecordedProgress())


def test_an_interrupt_stops_the_job_and_waits_for_it(
    at: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    let_go = tmp_path / "let-go"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # trainings of other tests may have left theirs
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    job(
        monkeypatch,
        f"""
        import time
        try:
            say(event="begin", stage="train")
            time.sleep(600)
        except KeyboardInterrupt:
            open({str(let_go)!r}, "w").close()
        """,
    )

    class Interrupted(RecordedProgress):
        def stage(self, name: str) -> Any:
            threading.Thread(target=_thread.interrupt_main).start()  # as Ctrl-C does
            return super().stage(name)

    with pytest.raises(KeyboardInterrupt):
        run_job(at, REQUEST, Interrupted())
    assert let_go.exists()


def test_a_job_ends_when_nobody_listens_any_more(tmp_path: Path) -> None:
    script = f"""
        import threading, time
        from headway.cluster.training_job import _end_with_the_asker
        threading.Thread(target=_end_with_the_asker, daemon=True).start()
        try:
            print("up", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            open({str(tmp_path / "let-go")!r}, "w").close()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout, process:
        assert process.stdout.readline() == b"up\n"
        process.stdin.close()
        assert process.wait(60) == 0
    assert (tmp_path / "let-go").exists()


def test_the_environment_names_the_lock_and_nothing_of_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_ID", "01000000")
    monkeypatch.setenv("HEADWAY_HOME", "kept")
    found = environment(REQUEST)
    assert found["HEADWAY_LOCK_SHA256"] == "a" * 64
    assert found["HEADWAY_HOME"] == "kept"
    assert "RAY_JOB_ID" not in found
    assert runtime_env(REQUEST)["env_vars"]["HEADWAY_LOCK_SHA256"] == "a" * 64
    assert set(runtime_env(REQUEST)) == {"env_vars"}  # nothing to install
