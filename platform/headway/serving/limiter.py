"""The rate limit of each client: one number per client, without timers, and what other replicas must be told of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

_CLIENTS = 10_000
_LOOKED_AT = 16
_ROUNDING = 1e-9


@dataclass(slots=True)
class Cell:
    """One client."""

    arrival: float = 0.0
    """Theoretical arrival time, monotonic seconds: what was let through is paid for by then."""
    unsent: int = 0
    """Rows let through that the other replicas have not been told of."""


class Gcra:
    """Generic cell rate algorithm (ITU-T I.371), exact for one process; cost = rows."""

    def __init__(self, *, rate: float, burst: float, clients: int = _CLIENTS) -> None:
        self.rate = rate
        self.burst = burst
        self.interval = 1.0 / rate
        """Seconds that a row costs; more where this replica keeps to its share of the rate."""
        self.cells: dict[str, Cell] = {}
        """By client, oldest first."""
        self._clients = clients

    def take(self, client: str, cost: int, now: float) -> float:
        """Return 0 and count the rows, or the seconds until they would fit; a refusal costs nothing."""
        cell = self.cells.get(client)
        if cell is None:
            cell = self._new(client, now)
        arrival = cell.arrival if cell.arrival > now else now
        interval = self.interval
        moved = arrival + cost * interval
        excess = moved - now - self.burst * interval
        if excess > _ROUNDING:
            return excess
        cell.arrival = moved
        cell.unsent += cost
        return 0.0

    def excess(self, client: str, cost: int, now: float) -> float:
        """Return 0, or the seconds until `cost` rows, at most the burst, would fit; nothing is counted."""
        cell = self.cells.get(client)
        if cell is None or cell.arrival <= now:
            return 0.0
        excess = cell.arrival - now + (cost - self.burst) * self.interval
        return excess if excess > _ROUNDING else 0.0

    def debit(self, client: str, cost: int, now: float) -> None:
        """Count rows that cannot be refused any more, into debt of at most another burst."""
        cell = self.cells.get(client) or self._new(client, now)
        most = now + 2 * self.burst * self.interval
        cell.arrival = min(max(cell.arrival, now) + cost * self.interval, most)
        cell.unsent += cost

    def _new(self, client: str, now: float) -> Cell:
        """Make room by forgetting an old client, one that owes nothing if there is one among the oldest."""
        if len(self.cells) >= self._clients:
            oldest = islice(self.cells.items(), _LOOKED_AT)
            free = (name for name, cell in oldest if cell.arrival <= now)
            del self.cells[next(free, next(iter(self.cells)))]
        cell = self.cells[client] = Cell(arrival=now)
        return cell
