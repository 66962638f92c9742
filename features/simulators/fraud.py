"""Card transactions and frauds, simulated whole-array after the design of the Fraud Detection Handbook.

Le Borgne, Siblini, Lebichot, Bontempi: *Reproducible Machine Learning for Credit Card Fraud Detection - Practical
Handbook* (ULB, 2022), chapter 3. Same distributions and scenarios; every draw is made for all customers at once, so 183
days take seconds. The handbook's own draw (another generator) has 1,754,155 transactions and 14,681 frauds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.times import DAY, EVENT_TIME, KNOWN_TIME, SECOND, parse_time

CUSTOMERS = 5_000
TERMINALS = 10_000
DAYS = 183
RADIUS = 5.0
START = parse_time("2018-04-01")
DRIFT_FROM = parse_time("2018-08-29")
LABEL_DELAY = 7 * DAY
INFLATION = 1.6
"""Factor on every amount once the world has drifted."""
WAVE_PER_DAY = 12
"""Cards that fall to the new fraud wave each day of the drifted world."""

Int = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class World:
    """Who pays how, and where."""

    mean_amount: Real
    per_day: Real
    nearby: Int
    """Terminals within the radius, all customers' lists one after the other."""
    first: Int
    """Start of customer c's list in `nearby`; length CUSTOMERS + 1."""


@dataclass(frozen=True, kw_only=True)
class Transactions:
    """One row per transaction, in time order."""

    second: Int
    """Seconds since START."""
    customer: Int
    terminal: Int
    amount: Real
    """Two decimals."""
    scenario: Int
    """0 genuine; 1, 2, 3 the handbook's frauds; 4 the drifted world's card testing."""

    @property
    def day(self) -> Int:
        """Day since START."""
        return self.second // 86_400


def simulate(seed: int, *, days: int = DAYS, drift_from: int | None = None) -> Transactions:
    """Return `days` of transactions; `drift_from` (UTC microseconds) changes the world from that day on.

    Up to that day the drifted history is the plain one, row for row.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)]
    world = _world(streams[0])
    plain = _genuine(world, streams[1], days)
    amount, scenario = _frauds(plain, streams[2], days)
    rows = Transactions(
        second=plain.second, customer=plain.customer, terminal=plain.terminal, amount=amount, scenario=scenario
    )
    return rows if drift_from is None else _drifted(rows, world, streams[3], days, (drift_from - START) // DAY)


def tables(seed: int, *, days: int = DAYS, drift_from: int | None = None) -> Mapping[str, pa.Table]:
    """Return the sources `transactions` and `fraud_outcomes` as Arrow tables sorted by event_time."""
    rows = simulate(seed, days=days, drift_from=drift_from)
    at = START + rows.second * SECOND
    facts = {
        "transaction_id": np.arange(at.size, dtype=np.int64),
        "customer_id": rows.customer,
        "terminal_id": rows.terminal,
        "amount": rows.amount.astype(np.float32),
    }
    labels = {"is_fraud": (rows.scenario > 0).astype(np.int64), "scenario": rows.scenario}
    return {
        "transactions": pa.table({**facts, EVENT_TIME: at, KNOWN_TIME: at + SECOND}),
        "fraud_outcomes": pa.table({**facts, **labels, EVENT_TIME: at, KNOWN_TIME: at + LABEL_DELAY}),
    }


def _world(rng: np.random.Generator) -> World:
    customers = rng.uniform(0, 100, (CUSTOMERS, 2))
    mean_amount = rng.uniform(5, 100, CUSTOMERS)
    per_day = rng.uniform(0, 4, CUSTOMERS)
    terminals = rng.uniform(0, 100, (TERMINALS, 2))
    near: list[Int] = []
    counts = np.zeros(CUSTOMERS, dtype=np.int64)
    for start in range(0, CUSTOMERS, 500):
        block = customers[start : start + 500]
        square = ((block[:, None, :] - terminals[None, :, :]) ** 2).sum(axis=2)
        who, which = np.nonzero(square < RADIUS**2)
        counts[start : start + 500] = np.bincount(who, minlength=len(block))
        near.append(which.astype(np.int64))
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    return World(mean_amount=mean_amount, per_day=per_day, nearby=np.concatenate(near), first=first)


def _genuine(world: World, rng: np.random.Generator, days: int) -> Transactions:
    counts = rng.poisson(world.per_day[:, None], (CUSTOMERS, days))
    cell = np.repeat(np.arange(CUSTOMERS * days), counts.ravel())
    clock = rng.normal(43_200, 20_000, cell.size).astype(np.int64)
    reachable = (world.first[1:] > world.first[:-1])[cell // days]
    keep = (clock > 0) & (clock < 86_400) & reachable
    cell, clock = cell[keep], clock[keep]
    customer = cell // days
    mean = world.mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    amount = np.where(amount < 0, rng.uniform(0, 2 * mean), amount).round(2)
    terminal = _choose_terminals(world, rng, customer)
    second = (cell % days) * 86_400 + clock
    order = np.argsort(second, kind="stable")
    return Transactions(
        second=second[order],
        customer=customer[order],
        terminal=terminal[order],
        amount=amount[order],
        scenario=np.zeros(order.size, dtype=np.int64),
    )


def _choose_terminals(world: World, rng: np.random.Generator, customer: Int) -> Int:
    length = world.first[customer + 1] - world.first[customer]
    chosen: Int = world.nearby[world.first[customer] + rng.integers(0, length)]
    return chosen


def _frauds(rows: Transactions, rng: np.random.Generator, days: int) -> tuple[Real, Int]:
    """Return amounts and scenarios; later scenarios overwrite earlier ones, as in the handbook."""
    amount = rows.amount.copy()
    scenario = np.where(amount > 220, 1, 0)
    day = rows.day
    spans = np.searchsorted(day, np.arange(days + 29))

    for start in range(days - 1):
        span = slice(int(spans[start]), int(spans[min(start + 28, days)]))
        hit = np.isin(rows.terminal[span], rng.choice(TERMINALS, 2, replace=False))
        scenario[span][hit] = 2
    for start in range(days - 1):
        span = slice(int(spans[start]), int(spans[min(start + 14, days)]))
        paid = np.flatnonzero(np.isin(rows.customer[span], rng.choice(CUSTOMERS, 3, replace=False)))
        chosen = span.start + rng.choice(paid, paid.size // 3, replace=False)
        amount[chosen] *= 5
        scenario[chosen] = 3
    return amount.round(2), scenario


def _drifted(rows: Transactions, world: World, rng: np.random.Generator, days: int, since: int) -> Transactions:
    """Change the world from day `since` on: prices rise, and stolen cards are tested at night.

    Amounts grow by INFLATION (the old rule of scenario 1 keeps its victims, so it no longer separates them). Each day
    WAVE_PER_DAY cards fall to card testing: six payments of 1 to 5 between midnight and six, on each of seven days, at
    terminals near the customer.
    """
    amount = np.where(rows.day >= since, rows.amount * INFLATION, rows.amount).round(2)
    reachable = np.flatnonzero(world.first[1:] > world.first[:-1])
    start = np.repeat(np.arange(since, days), WAVE_PER_DAY)
    victim = rng.choice(reachable, start.size)
    day = (start[:, None] + np.arange(7)[None, :]).repeat(6, axis=1)
    victims = np.broadcast_to(victim[:, None], day.shape)
    keep = day < days
    customer = victims[keep]
    second = day[keep] * 86_400 + rng.integers(1, 6 * 3600, customer.size)
    testing = Transactions(
        second=second,
        customer=customer,
        terminal=_choose_terminals(world, rng, customer),
        amount=rng.uniform(1, 5, customer.size).round(2),
        scenario=np.full(customer.size, 4, dtype=np.int64),
    )
    order = np.argsort(np.concatenate([rows.second, testing.second]), kind="stable")
    return Transactions(
        second=np.concatenate([rows.second, testing.second])[order],
        customer=np.concatenate([rows.customer, testing.customer])[order],
        terminal=np.concatenate([rows.terminal, testing.terminal])[order],
        amount=np.concatenate([amount, testing.amount])[order],
        scenario=np.concatenate([rows.scenario, testing.scenario])[order],
    )
