"""Where the pieces of a join are evaluated: in this process, or in Ray tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from headway.features.join.work import Exchange, Work, evaluate, last_rows, split


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work, and the tables that it needs beside files: here, or references to the object store."""

    work: Work
    parts: Sequence[Any] = ()
    """The bucket's rows, where they come from an exchange."""
    carried: Sequence[Any] = ()
    """The last rows of earlier spans."""


class Runner(Protocol):
    """Where the work happens: in this process, or in Ray tasks."""

    def exchange(self, items: list[Exchange], buckets: int) -> list[list[Any]]:
        """Return per bucket the tables to be handed on as parts."""
        ...

    def last(self, work: Work, parts: Sequence[Any]) -> Any:
        """Return the table of the last rows of a span, to be handed on as carried."""
        ...

    def evaluate(self, jobs: list[Job]) -> Iterator[pa.Table]:
        """Return the features of each job, in order."""
        ...


class Here:
    """Runs everything in this process."""

    def exchange(self, items: list[Exchange], buckets: int) -> list[list[Any]]:
        """Return the exchanged tables."""
        made = [table for item in items for table in split(item)]
        return [made[number::buckets] for number in range(buckets)]

    def last(self, work: Work, parts: Sequence[Any]) -> Any:
        """Return the last rows."""
        return last_rows(work, parts)

    def evaluate(self, jobs: list[Job]) -> Iterator[pa.Table]:
        """Evaluate one after another, as they are asked for."""
        return (evaluate(job.work, job.parts, job.carried) for job in jobs)


class OnRay:
    """Runs everything in tasks.

    Exchanged rows stay in the object store, which spills to disk. Tasks get references to them and fetch one after
    another: as arguments all of them would have to fit into the object store together.
    """

    def exchange(self, items: list[Exchange], buckets: int) -> list[list[Any]]:
        """Return references to the exchanged tables, all of them made."""
        import ray

        task = ray.remote(_split_to_the_end).options(num_cpus=1, max_retries=3, num_returns="streaming")
        made: list[Any] = []
        for stream in [task.remote(item) for item in items]:
            *tables, end = stream
            ray.get(end)  # raises what the task raised
            made += tables
        return [made[number::buckets] for number in range(buckets)]

    def last(self, work: Work, parts: Sequence[Any]) -> Any:
        """Start a task and return a reference to its table."""
        import ray

        return ray.remote(last_rows).options(num_cpus=1, max_retries=3).remote(work, parts)

    def evaluate(self, jobs: list[Job]) -> Iterator[pa.Table]:
        """Start a task per job, once what they share is there."""
        import ray

        shared = list({id(one): one for job in jobs for one in job.carried}.values())
        if shared:  # a task that waits inside for another would let more run than there are cores
            ray.wait(shared, num_returns=len(shared), fetch_local=False)
        task = ray.remote(evaluate).options(num_cpus=1, max_retries=3)
        references = [task.remote(job.work, list(job.parts), list(job.carried)) for job in jobs]
        for position, reference in enumerate(references):
            yield ray.get(reference)
            references[position] = None  # its blocks may go


def _split_to_the_end(item: Exchange) -> Iterator[pa.Table | None]:
    """Yield the tables, then None: an error stands in the stream like a table, and raises only where it is fetched."""
    yield from split(item)
    yield None
