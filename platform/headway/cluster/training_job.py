"""A training as a Ray job of its own: a driver process with its runtime environment, which talks to whoever asked.

Its memory, its imports and its crash are not those of a terminal, of the demo or of a monitor. It is told what to do
in one line on its standard input and says what it does in lines on its standard output; when nobody listens any more
it stops. Decision 20 says why it is no submission to Ray's job server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any, Literal

import msgspec

from headway.cluster.compose import Installation
from headway.core.errors import HeadwayError, ServiceFailed
from headway.core.progress import Progress
from headway.core.remote_progress import HeardProgress, Line, SpokenProgress, heard_error, told_error
from headway.training.lock import LOCK

COMMAND = (sys.executable, "-m", "headway.cluster.training_job")
STOP_S = 30.0
"""Seconds in which a job that was told to stop may let go of what it holds."""
_TAIL = 2_000


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is to do."""

    act: Literal["train", "reproduce"]
    use_case: str
    home: str
    project: str
    asked_by: str
    """Subject who asked and had the right to."""
    lock_sha256: str
    as_of: int | None = None
    """UTC microseconds; None: now, or that of a run to go on with."""
    version: str = ""
    without_champion: str = ""
    """Why the version that serves is left out of the gates."""


def run_job(at: Installation, request: JobRequest, progress: Progress) -> bytes:
    """Run a job to its end and return its result as JSON; its errors are raised here, its stages drawn by `progress`.

    An interrupt stops it first.
    """
    log = at.settings.home / "logs" / f"{request.act}-{request.use_case}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        job = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment(request),
            cwd=at.settings.project, start_new_session=True,  # the terminal's interrupt is passed on by us, once
        )  # fmt: skip
        assert job.stdin is not None
        assert job.stdout is not None
        heard = HeardProgress(progress)
        try:
            with suppress(BrokenPipeError):  # it died at once: its log says why
                job.stdin.write(msgspec.json.encode(request) + b"\n")
                job.stdin.flush()
            result = _listen(job.stdout, heard)
        except BaseException:
            _stop(job)
            raise
        finally:
            heard.close()
            with suppress(BrokenPipeError):
                _end(job)
    if result is None:
        tail = log.read_text(errors="replace")[-_TAIL:]
        raise ServiceFailed(f"the training job ended with {job.returncode}, log {log}:\n{tail}", hint="train again")
    return result


def environment(request: JobRequest) -> dict[str, str]:
    """Return the environment of the job's driver: that of this process without what Ray told this very worker."""
    here = {name: value for name, value in os.environ.items() if name not in _OF_A_WORKER}
    return here | {LOCK: request.lock_sha256}


def runtime_env(request: JobRequest) -> dict[str, Any]:
    """Return the runtime environment of the job's workers; nothing is installed in it: the lock says what there is."""
    return {"env_vars": {LOCK: request.lock_sha256, "HEADWAY_JOB": f"{request.act}:{request.use_case}"}}


_OF_A_WORKER = ("RAY_JOB_ID", "RAY_WORKER_ID", "RAY_RUNTIME_ENV_HASH", "RAY_JOB_CONFIG_JSON_ENV_VAR")


def _listen(lines: IO[bytes], heard: HeardProgress) -> bytes | None:
    for text in lines:
        try:
            line: Line = msgspec.json.decode(text)
        except msgspec.DecodeError:
            continue
        if line.get("event") == "error":
            raise heard_error(line["error"])
        if line.get("event") == "result":
            return str(line["result"]).encode()
        heard.hear(line)
    return None


def _stop(job: subprocess.Popen[bytes]) -> None:
    """Interrupt the job, so that it lets go of its turn and its snapshots."""
    if job.poll() is None:
        job.send_signal(signal.SIGINT)


def _end(job: subprocess.Popen[bytes]) -> None:
    """Wait for a job that has nothing to do any more; kill it where it does not end."""
    try:
        job.wait(STOP_S)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()
    finally:
        for pipe in (job.stdout, job.stdin):
            if pipe is not None:
                pipe.close()


def main() -> int:
    """Be the job."""
    speech = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print goes to the log

    def say(line: Line) -> None:
        speech.write(msgspec.json.encode(line) + b"\n")

    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=JobRequest)
    threading.Thread(target=_end_with_the_asker, name="asker", daemon=True).start()
    from headway.cluster.training_acts import act  # the acts ask for jobs too

    try:
        at = Installation.running(
            writer=f"{request.act}-{request.use_case}", home=request.home, project=request.project
        )
        result = act(at, request, SpokenProgress(say))
    except HeadwayError as error:
        say({"event": "error", "error": told_error(error)})
        return 1
    except KeyboardInterrupt:
        return 130
    say({"event": "result", "result": result.decode()})
    return 0


def _end_with_the_asker() -> None:
    """Stop when whoever asked is gone: nobody would hear the result."""
    while os.read(0, 1):  # a buffered reader that waits would break the interpreter's end
        continue
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(STOP_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
