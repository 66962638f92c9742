"""The labelled rows that features are joined to, read from a pinned snapshot: for training and for people alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.errors import DefinitionError
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Matrix, Principal
from headway.features.definitions import EventSource, FeatureService
from headway.features.reader import LakeReader


def pin(reader: LakeReader, *sources: EventSource) -> dict[str, int]:
    """Return table → its current snapshot id, so that what is read now can be read again."""
    return {table: reader.snapshot(table) for table in dict.fromkeys(source.table for source in sources)}


def labelled_rows(
    spine: EventSource,
    service: FeatureService,
    columns: Sequence[str],
    reader: LakeReader,
    principal: Principal,
    purpose: str,
    *,
    event_time: tuple[int, int],
    known_by: int,
    snapshots: Mapping[str, int],
    field: str,
) -> pa.Table:
    """Return the spine's rows with the service's keys and request columns, its id, event_time and the named columns.

    Of rows of one id and event_time, which streams and producers may bring more than once, the one known last.

    Args:
        spine: Labelled decisions.
        service: What will be joined.
        columns: Others that are wanted: the label.
        reader: Access to the lake.
        principal: Who reads.
        purpose: Why.
        event_time: Half-open range of decision times.
        known_by: Labels known after it are not seen.
        snapshots: Table → pinned snapshot id.
        field: Named in the DefinitionError for a column that the spine lacks.
    """
    wanted = [*service.keys, *(name for name in service.request if name != EVENT_TIME), *columns]
    for name in wanted:
        if name not in spine.columns:
            raise DefinitionError(
                f"the spine {spine.name!r} has no column {name!r}", field=field, expected=", ".join(spine.columns)
            )
    rows = reader.scan(
        spine,
        principal,
        purpose,
        columns=list(dict.fromkeys([*wanted, spine.id, EVENT_TIME, KNOWN_TIME])),
        event_time=event_time,
        known_by=known_by,
        snapshot_id=snapshots[spine.table],
    )
    return _once(rows, spine).drop_columns([KNOWN_TIME])


def _once(rows: pa.Table, spine: EventSource) -> pa.Table:
    """Return each event's row that was known last."""
    identity = [spine.id, EVENT_TIME]
    if rows.group_by(identity, use_threads=False).aggregate([]).num_rows == rows.num_rows:
        return rows
    order = rows.sort_by([*((name, "ascending") for name in identity), (KNOWN_TIME, "ascending")])
    last = np.ones(order.num_rows, np.bool_)
    same = [pc.equal(order[name][1:], order[name][:-1]) for name in identity]
    last[:-1] = ~np.asarray(pc.fill_null(pc.and_(*same), True))
    return order.filter(pa.array(last))


def in_order(rows: pa.Table, spine: EventSource) -> pa.Table:
    """Return the rows in order of time and id, which does not depend on files."""
    return rows.sort_by([(EVENT_TIME, "ascending"), (spine.id, "ascending")])


def to_matrix(table: pa.Table, features: Sequence[str]) -> Matrix:
    """Return float32 [n, k]; nulls become NaN."""
    matrix = np.empty((len(table), len(features)), dtype=np.float32)
    for index, name in enumerate(features):
        matrix[:, index] = table[name].to_numpy()
    return matrix
