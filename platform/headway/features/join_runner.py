"""Where the pieces of a join are evaluated: in this process, or in Ray tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa

from headway.features.join_work import Exchange, Work, evaluate, split


class Runner(Protocol):
    """Where the work happens: in this process, or in Ray tasks."""

    def exchange(self, items: list[Exchange]) -> list[list[Any]]:
        """Return what is to be handed to `evaluate` as parts: per bucket, one from each item."""
        ...

    def evaluate(self, work: list[tuple[Work, list[Any]]]) -> Iterator[pa.Table]:
        """Return the features of each piece of work, in order."""
        ...


class Here:
    """Runs everything in this process."""

    def exchange(self, items: list[Exchange]) -> list[list[Any]]:
        """Return the exchanged tables."""
        return [list(parts) for parts in zip(*(split(item) for item in items), strict=True)]

    def evaluate(self, work: list[tuple[Work, list[Any]]]) -> Iterator[pa.Table]:
        """Evaluate one after another, as they are asked for."""
        return (evaluate(item, *parts) for item, parts in work)


class OnRay:
    """Runs everything in tasks; the source's rows stay in the object store, which spills to disk."""

    def exchange(self, items: list[Exchange]) -> list[list[Any]]:
        """Return references to the exchanged tables."""
        import ray

        buckets = items[0].view.source.buckets
        task = ray.remote(split).options(num_cpus=1, max_retries=3, num_returns=buckets)
        made = [task.remote(item) for item in items]
        per_item = [[one] for one in made] if buckets == 1 else made
        return [list(parts) for parts in zip(*per_item, strict=True)]

    def evaluate(self, work: list[tuple[Work, list[Any]]]) -> Iterator[pa.Table]:
        """Start a task per piece of work."""
        import ray

        task = ray.remote(evaluate).options(num_cpus=1, max_retries=3)
        references = [task.remote(item, *parts) for item, parts in work]
        for position, reference in enumerate(references):
            yield ray.get(reference)
            references[position] = None  # its blocks may go
