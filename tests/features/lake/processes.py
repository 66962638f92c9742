"""Processes that work on one lake until they are done or killed: `python -m tests.features.lake.processes ROLE …`."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from dataclasses import replace

from headway.core.errors import Unavailable
from headway.core.times import SECOND
from headway.features.lake.committer import Committer
from headway.features.lake.retention import Retention
from headway.features.lake.tables import Location
from tests.features.oracle import SOURCE
from tests.features.samples import batch

ROWS = 25
RETENTION = Retention(newest=3, hourly=0, daily=0, grace=0)
BESIDE_WRITERS = replace(RETENTION, grace=10 * SECOND)
"""A writer that reads a file when it is slow must find it."""


def patient(lake: Location) -> Committer:
    """Return a committer, as soon as the catalog can be opened."""
    while True:
        try:
            return Committer(lake)
        except Unavailable:
            time.sleep(0.05)


def write(lake: Location, first: int, batches: int) -> None:
    """Append batches one by one, each until it is said to be there."""
    committer = patient(lake)
    for number in range(first, first + batches):
        while True:
            try:
                committer.append(SOURCE, batch(number * ROWS, ROWS), f"b{number}")
            except Unavailable:
                time.sleep(0.05)
            else:
                break


def keep_up(lake: Location) -> None:
    """Compact, expire and delete without end."""
    committer = patient(lake)
    while True:
        try:
            committer.compact_step(SOURCE.table, whole=True)
            committer.expire_step(SOURCE.table, (), BESIDE_WRITERS)
        except Unavailable:
            time.sleep(0.05)


def work(lake: Location, number: int) -> None:
    """Append one batch, and do all upkeep that is due."""
    committer = patient(lake)
    committer.append(SOURCE, batch(number * ROWS, ROWS), f"b{number}")
    while committer.compact_step(SOURCE.table, whole=number % 4 == 0).left:
        pass
    committer.expire_step(SOURCE.table, (), RETENTION)


def die(lake: Location, rounds: int, seed: int) -> None:
    """Work in processes that kill themselves at a random call of a function, until each round is through."""
    for module in ("pyiceberg.catalog.sql", "pyiceberg.io.pyarrow", "pyiceberg.table.update.snapshot", "pyarrow.acero"):
        importlib.import_module(module)  # so that processes die at work and not at imports
    dice, deaths = random.Random(seed), 0
    for number in range(rounds):
        calls = dice.randint(1_000, 120_000)
        while True:
            pid = os.fork()
            if not pid:
                _kill_after(calls)
                work(lake, number)
                os._exit(0)
            if not os.waitpid(pid, 0)[1]:
                break
            deaths += 1
            calls += dice.randint(1, 120_000)
    sys.stdout.write(f"{deaths}\n")


def _kill_after(calls: int) -> None:
    left = [calls]

    def count(_frame: object, event: str, _argument: object) -> None:
        if event == "call":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


if __name__ == "__main__":
    role, uri, warehouse, *numbers = sys.argv[1:]
    place = Location(catalog_uri=uri, warehouse=warehouse)
    if role == "write":
        write(place, *map(int, numbers))
    elif role == "die":
        die(place, *map(int, numbers))
    else:
        keep_up(place)
