"""Point-in-time features of label rows, in one process and without input or output: N rows in, N rows out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headway.core.types import Int64
from headway.features.arrow import locate
from headway.features.definitions import WindowView
from headway.features.events import Events
from headway.features.windows import WindowColumns, plan_of, window_columns

_PIECE = 262_144


def view_columns(
    view: WindowView, events: Events, keys: npt.NDArray[np.generic], at: Int64, *, cutoff: bool = True
) -> WindowColumns:
    """Evaluate a view for label rows in any order; keys may repeat, be unknown, or None.

    Rows are visited in the order of (key, time), in pieces: searches then run through neighbouring memory, which makes
    them several times faster than in the order of the labels.
    """
    plan = plan_of(view)
    position = locate(events.keys, keys)
    if len(at) <= 1_024:
        return window_columns(plan, events, position, at, cutoff=cutoff)
    order = np.lexsort([at, position])
    columns = {name: np.empty(len(at), np.float32) for name in view.features}
    status = np.empty(len(at), np.uint8)
    for begin in range(0, len(at), _PIECE):
        rows = order[begin : begin + _PIECE]
        piece = window_columns(plan, events, position[rows], at[rows], cutoff=cutoff)
        status[rows] = piece.status
        for name, column in piece.columns.items():
            columns[name][rows] = column
    return WindowColumns(columns=columns, status=status)
