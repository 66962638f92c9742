"""Each event once: rows that came again under an id that is there already count for nothing, here as in windows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.times import EVENT_TIME, KNOWN_TIME


def first_known(rows: pa.Table, name: str) -> pa.Table:
    """Return the rows in their order with each id once, and those without an id.

    Of several rows with one id the first known counts, then the smallest event_time, then the smallest values, so that
    the outcome does not depend on files; `rows` has both times.
    """
    ids = rows[name].combine_chunks()
    if pc.count_distinct(ids).as_py() == rows.num_rows - ids.null_count:
        return rows
    counts = ids.drop_null().value_counts()
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    places = np.flatnonzero(pc.is_in(ids, value_set=repeated).to_numpy(zero_copy_only=False))
    again = rows.take(pa.array(places))
    ties = [other for other in again.column_names if other not in (name, KNOWN_TIME, EVENT_TIME)]
    order = pc.sort_indices(again, [(key, "ascending") for key in (name, KNOWN_TIME, EVENT_TIME, *sorted(ties))])
    sorted_ids = again[name].combine_chunks().dictionary_encode().indices.to_numpy()[order.to_numpy()]
    keep = np.ones(rows.num_rows, np.bool_)
    keep[places[order.to_numpy()[1:][sorted_ids[1:] == sorted_ids[:-1]]]] = False
    return rows.filter(pa.array(keep))
