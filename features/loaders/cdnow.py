"""CDNOW purchases (real): 69,659 purchases of 23,570 customers of a music shop, 1 January 1997 to 30 June 1998.

The data ship in the package `lifetimes` (MIT) as a text file, which is found without importing the package: that import
is slow and brings plotting libraries. The file has dates only. To make "before" well defined, the purchases of
one day are spread evenly over the day in the order of the file (customer, then line), so no two share a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.errors import CorruptState, NotFound
from headway.core.times import DAY, EVENT_TIME, KNOWN_TIME, SECOND, parse_time

SHA256 = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"
END = parse_time("1998-07-01")
"""First moment after the data."""
HORIZON = 90 * DAY
"""How long a customer has to buy again, and hence how late the label is."""

Int = npt.NDArray[np.int64]


def tables(path: Path | None = None) -> Mapping[str, pa.Table]:
    """Return the sources `purchases` and `purchase_outcomes` as Arrow tables sorted by event_time.

    Purchases of the last 90 days have no row in `purchase_outcomes`: the data end before their label exists.
    """
    customer, day, amount = _parse(_verified(path or locate()))
    at = _spread(day)
    order = np.argsort(at, kind="stable")
    customer, day, amount, at = customer[order], day[order], amount[order], at[order]
    facts = {
        "purchase_id": np.arange(at.size, dtype=np.int64),
        "customer_id": customer,
        "amount": amount.astype(np.float32),
    }
    label = buys_again(customer, day)
    labelled = at + HORIZON <= END
    outcomes = pa.table({**facts, "buys_again": label, EVENT_TIME: at, KNOWN_TIME: at + HORIZON})
    return {
        "purchases": pa.table({**facts, EVENT_TIME: at, KNOWN_TIME: at + SECOND}),
        "purchase_outcomes": outcomes.filter(pa.array(labelled)),
    }


def locate() -> Path:
    """Return the text file inside the installed package; NotFound when the package is missing."""
    spec = find_spec("lifetimes")
    if spec is None or spec.origin is None:
        raise NotFound("package", "lifetimes", field="features.loaders.cdnow")
    return Path(spec.origin).parent / "datasets" / "CDNOW_master.txt"


def buys_again(customer: Int, day: Int) -> Int:
    """Return 1 where the customer has a purchase on a later day, at most 90 days later; days since 1970.

    A second purchase on the same day is the same visit to the shop, not a return.
    """
    order = np.lexsort((day, customer))
    who, when = customer[order], day[order]
    visit_start = np.flatnonzero(np.r_[True, (who[1:] != who[:-1]) | (when[1:] != when[:-1])])
    visit = np.repeat(np.arange(visit_start.size), np.diff(np.r_[visit_start, who.size]))
    next_who = np.r_[who[visit_start][1:], -1]
    next_day = np.r_[when[visit_start][1:], 0]
    returns = (next_who == who[visit_start]) & (next_day - when[visit_start] <= HORIZON // DAY)
    label = np.empty(who.size, dtype=np.int64)
    label[order] = returns[visit]
    return label


def _verified(path: Path) -> bytes:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise CorruptState(
            f"{path.name} has SHA-256 {found}, expected {SHA256}", hint="reinstall the package: pip install lifetimes"
        )
    return data


def _parse(data: bytes) -> tuple[Int, Int, npt.NDArray[np.float64]]:
    fields = np.array(data.split()[4:]).reshape(-1, 4)
    dates = fields[:, 1].astype(np.int64)
    months = ((dates // 10_000 - 1970) * 12 + dates // 100 % 100 - 1).astype("datetime64[M]")
    day = months.astype("datetime64[D]").astype(np.int64) + dates % 100 - 1
    return fields[:, 0].astype(np.int64), day, fields[:, 3].astype(np.float64)


def _spread(day: Int) -> Int:
    order = np.argsort(day, kind="stable")
    _, start, counts = np.unique(day[order], return_index=True, return_counts=True)
    rank = np.arange(day.size) - np.repeat(start, counts)
    at = np.empty(day.size, dtype=np.int64)
    at[order] = day[order] * DAY + rank * DAY // np.repeat(counts, counts)
    return at
