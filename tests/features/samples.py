"""Rows of the tests' payments, and what is read of them online."""

from __future__ import annotations

import asyncio

import numpy as np
import pyarrow as pa

from headway.features.definitions import FeatureService
from headway.features.online import OnlineReader, OnlineRows
from tests.features.oracle import Event


def table(history: list[Event]) -> pa.Table:
    """Return events as rows of the source."""
    return pa.table(
        {
            "payment": pa.array([e.id for e in history], pa.int64()),
            "card": pa.array([e.key for e in history], pa.int64()),
            "amount": pa.array([None if e.value is None else e.value / 100 for e in history], pa.float64()),
            "event_time": pa.array([e.event_time for e in history], pa.int64()),
            "known_time": pa.array([e.known_time for e in history], pa.int64()),
        }
    )


def batch(first: int, n: int) -> pa.Table:
    """Return n payments, numbered from the first on."""
    ids = np.arange(first, first + n)
    return pa.table(
        {"payment": ids, "card": ids % 7, "amount": ids / 4, "event_time": ids * 10, "known_time": ids * 10 + 1}
    )


def read(service: FeatureService, url: str, keys: list[int | None], at: list[int]) -> OnlineRows:
    """Return what a service serves of cards at certain times."""

    async def go() -> OnlineRows:
        reader = OnlineReader(service, url)
        try:
            return await reader.read({"card": np.array(keys, object)}, np.array(at, np.int64))
        finally:
            await reader.close()

    return asyncio.run(go())
