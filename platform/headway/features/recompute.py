"""Features of a few keys straight from the lake, in the form that the online reader gives: for when that one is behind.

Only files and rows of the wanted keys are read, of the newest snapshot, governed and audited like every other read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.types import Columns, Int64, Principal
from headway.features.arrow import ARROW_TYPES, keys, with_times
from headway.features.definitions import AliasedView, FeatureService, RowView, View
from headway.features.entities import key_parts
from headway.features.join.point_in_time import row_columns, window_features
from headway.features.join.work import bucket_column
from headway.features.lake.reader import LakeReader, read_files
from headway.features.lake.tables import bucket_of
from headway.features.online import OnlineRows


class LakeFeatures:
    """Computes views of one service; blocking, so call it from a thread."""

    def __init__(
        self, service: FeatureService, reader: Callable[[], LakeReader], principal: Callable[[], Principal]
    ) -> None:
        self._views = {view.name: view for view in service.views}
        self._open = reader
        self._principal = principal
        self._reader: LakeReader | None = None

    def read(self, views: Sequence[str], keys: Columns, at: Int64) -> OnlineRows:
        """Return the features of n rows as of their decision times, as far as they were known then.

        Args:
            views: Which views.
            keys: Entity key column → n keys: int64, or object for strings and nulls.
            at: int64[n], UTC microseconds.
        """
        self._reader = self._reader or self._open()
        columns: Columns = {}
        status: dict[str, npt.NDArray[np.uint8]] = {}
        for name in views:
            view = self._views[name]
            found, states = _evaluate(view, self._reader, self._principal(), keys, at)
            columns.update(found)
            status[name] = states
        return OnlineRows(parts=[lambda: columns], status=status, watermark={})


def _evaluate(
    joined: View | AliasedView, reader: LakeReader, principal: Principal, wanted: Columns, at: Int64
) -> tuple[Columns, npt.NDArray[np.uint8]]:
    view, entity = joined.stored, joined.stored.entity
    types = [ARROW_TYPES[dtype] for dtype in entity.dtypes]
    columns = [pa.array(wanted[name].tolist(), kind) for name, kind in zip(joined.keys, types, strict=True)]
    owners = pa.table(dict(zip(entity.keys, columns, strict=True)))
    distinct = owners[bucket_column(view)].combine_chunks().unique().drop_null()
    table = _rows_with(view, distinct, reader, principal, known_by=int(at.max()))
    if isinstance(view, RowView):
        rows = row_columns(view, [table.select], owners, at)
        return dict(zip(joined.features, map(_plain, rows.table.columns), strict=True)), rows.status
    windows = window_features(view, table, owners, at)
    found = (windows.columns[name] for name in view.features)
    return dict(zip(joined.features, found, strict=True)), windows.status


def _plain(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """Return a column as the online reader gives it: missing numbers as NaN, missing strings as None."""
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), object)
    if column.null_count and not pa.types.is_floating(column.type):
        column = column.cast(pa.int64()).cast(pa.float64())
    return np.asarray(column.to_numpy())


def rows_of(view: View, wanted: npt.NDArray[np.generic], reader: LakeReader, principal: Principal) -> pa.Table:
    """Return all rows of a view's source that some keys have in the newest snapshot, times as int64.

    `wanted` are keys as `arrow.keys` gives them: int64, or object for strings and for the text of several columns.
    """
    entity, cut = view.entity, bucket_column(view)
    place = entity.keys.index(cut)
    values = {key_parts(str(key), entity.dtypes)[place] for key in wanted.tolist()}
    table = _rows_with(view, pa.array(values, ARROW_TYPES[entity.dtypes[place]]), reader, principal)
    if len(entity.keys) == 1:
        return table
    return table.filter(pc.is_in(pa.array(keys(table, entity)), value_set=pa.array(wanted.tolist())))


def _rows_with(
    view: View, values: pa.Array, reader: LakeReader, principal: Principal, *, known_by: int | None = None
) -> pa.Table:
    """Return the source's rows with some values of the view's bucket column, out of few files where the lake allows."""
    source, cut = view.source, bucket_column(view)
    plan = reader.plan(source, principal, principal.purpose)
    paths = plan.paths
    if source.bucket_by == cut:
        buckets = set(bucket_of(values, source.buckets).tolist())
        paths = tuple(path for path, bucket in plan.files if bucket in buckets)
    return read_files(plan.schema, paths, with_times(view), known_by=known_by, keys=(cut, values))
