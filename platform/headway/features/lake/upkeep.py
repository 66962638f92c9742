"""The upkeep that appends make due: a thread that merges files and lets snapshots go while appends go on.

A commit in so many makes a round of each kind due. Whatever a round does is told to the audit log under the platform's
own identity. Appends wait for the commits of a round, which are short, and for a step of it where it falls far behind.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter

from headway.features.lake.committer import Committer
from headway.features.lake.compaction import Compacted
from headway.features.lake.expiry import Expired
from headway.governance.audit_event import AuditSink

_LOG = logging.getLogger(__name__)
APPENDS_PER_COMPACTION = 8
APPENDS_PER_LEVELLING = 64
APPENDS_PER_EXPIRY = 32
BEHIND = 4 * APPENDS_PER_COMPACTION
"""Appends that a table may be ahead of its compaction; each further one waits for a step of it."""
WAIT_S = 1.0
"""The longest such wait."""
IDENTITY = "headway-committer"


class Upkeep:
    """Looks after the tables of one committer; threads may share it."""

    def __init__(self, committer: Committer, audit: AuditSink | None = None) -> None:
        """`audit` is told of what was done; None: nobody is."""
        self._committer = committer
        self._audit = audit
        self._changed = threading.Condition()
        self._appends: Counter[str] = Counter()
        self._compacted: Counter[str] = Counter()
        """The appends of each table that its last round of compaction has seen."""
        self._due: dict[tuple[str, str], None] = {}
        self._busy = False
        self._steps = 0
        self._thread = threading.Thread(target=self._run, name="lake-upkeep", daemon=True)
        self._thread.start()

    def appended(self, name: str) -> None:
        """Count a commit, and wait a little where upkeep is far behind."""
        with self._changed:
            self._appends[name] += 1
            count = self._appends[name]
            for act, every in (("compact", APPENDS_PER_COMPACTION), ("expire", APPENDS_PER_EXPIRY)):
                if count % every == 0:
                    self._due[act, name] = None
            if count % APPENDS_PER_LEVELLING == 0:
                self._due["level", name] = None
            self._changed.notify_all()
            if count - self._compacted[name] > BEHIND:
                steps = self._steps
                self._changed.wait_for(lambda: self._steps != steps or not self._busy, WAIT_S)

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is due, and return whether that came about."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._due and not self._busy, timeout_s)

    def _run(self) -> None:
        acts = {
            "compact": self._compact,
            "level": self._level,
            "expire": self._expire,
        }
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._due)
                act, name = min(self._due, key=lambda due: list(acts).index(due[0]))
                del self._due[act, name]
                self._busy = True
            try:
                acts[act](name)
            except Exception:  # nobody waits for it; it is tried again when it is due next
                _LOG.exception("%s %s failed", act, name)

    def _compact(self, name: str) -> None:
        with self._changed:
            seen = self._appends[name]
        self._merge(name, level=False)
        with self._changed:
            self._compacted[name] = seen

    def _level(self, name: str) -> None:
        self._merge(name, level=True)

    def _merge(self, name: str, *, level: bool) -> None:
        def step() -> Compacted:
            done = self._committer.compact_step(name, level=level)
            self._stepped()
            return done

        whole = done = step()
        while done.left and not (level and self._waits("compact")):
            done = step()
            whole += done
        if done.left:
            with self._changed:
                self._due["level", name] = None
        if whole.merged:
            self._tell("lake.compact", name)

    def _expire(self, name: str) -> None:
        done = self._committer.expire_step(name)
        whole = done
        while done.left:
            self._stepped()
            done = self._committer.expire_step(name)
            whole += done
        if whole != Expired():
            self._tell("lake.expire", name)

    def _waits(self, act: str) -> bool:
        with self._changed:
            return any(due[0] == act for due in self._due)

    def _stepped(self) -> None:
        with self._changed:
            self._steps += 1
            self._changed.notify_all()

    def _tell(self, action: str, name: str) -> None:
        if self._audit is not None:
            self._audit.append(
                actor=IDENTITY, kind="workload", action=action, resource=name, purpose="operations", outcome="done"
            )
