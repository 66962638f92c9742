"""The labelled rows that features are joined to, read from a pinned snapshot: for training and for people alike.

An outcome may have come more than once, posted and from a file: the id tells, and the first known counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from headway.core.errors import DefinitionError
from headway.core.times import EVENT_TIME, KNOWN_TIME
from headway.core.types import Matrix, Principal
from headway.features.definitions import EventSource, FeatureService
from headway.features.distinct import first_known
from headway.features.lake.reader import LakeReader


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

    Each id comes once, as it was known first.

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
    names = list(dict.fromkeys([*wanted, spine.id, EVENT_TIME]))
    rows = reader.scan(
        spine,
        principal,
        purpose,
        columns=list(dict.fromkeys([*names, KNOWN_TIME])),
        event_time=event_time,
        known_by=known_by,
        snapshot_id=snapshots[spine.table],
    )
    return first_known(rows, spine.id).select(names)


def in_order(rows: pa.Table, spine: EventSource) -> pa.Table:
    """Return the rows in order of time and id, which does not depend on files."""
    return rows.sort_by([(EVENT_TIME, "ascending"), (spine.id, "ascending")])


def to_matrix(table: pa.Table, features: Sequence[str]) -> Matrix:
    """Return float32 [n, k]; nulls become NaN."""
    matrix = np.empty((len(table), len(features)), dtype=np.float32)
    for index, name in enumerate(features):
        matrix[:, index] = table[name].to_numpy()
    return matrix
