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
from headway.features.arrow import ARROW_TYPES, events_by, key_columns, keys
from headway.features.definitions import AliasedView, FeatureService, RowView, View
from headway.features.join.point_in_time import KeyIndex, row_columns, view_columns
from headway.features.join.work import bucket_column, columns_of
from headway.features.lake import bucket_of
from headway.features.online import OnlineRows
from headway.features.reader import LakeReader, read_files


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
    view, entity, source = joined.stored, joined.stored.entity, joined.stored.source
    types = [ARROW_TYPES[dtype] for dtype in entity.dtypes]
    columns = [pa.array(wanted[name].tolist(), kind) for name, kind in zip(joined.keys, types, strict=True)]
    owners = pa.table(dict(zip(entity.keys, columns, strict=True)))
    cut = bucket_column(view)
    distinct = owners[cut].combine_chunks().unique().drop_null()
    plan = reader.plan(source, principal, principal.purpose)
    paths = plan.paths
    if source.bucket_by == cut:
        buckets = set(bucket_of(distinct, source.buckets).tolist())
        paths = tuple(path for path, bucket in plan.files if bucket in buckets)
    table = read_files(plan.schema, paths, columns_of(view), known_by=int(at.max()), keys=(cut, distinct))
    if isinstance(view, RowView):
        rows = row_columns(view, [table.select], owners, at)
        return dict(zip(joined.features, map(_plain, rows.table.columns), strict=True)), rows.status
    index = KeyIndex.of(owners)
    owner = index.number(key_columns(table, entity.keys, entity), table.num_rows)
    events = events_by(view, table.filter(pa.array(owner >= 0)), owner[owner >= 0])
    windows = view_columns(view, events, index.labels(len(at)), at)
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
    """Return all rows of a view's source that some keys have in the newest snapshot, times as int64."""
    entity, source = view.entity, view.source
    plan = reader.plan(source, principal, principal.purpose)
    if len(entity.keys) > 1:
        table = read_files(plan.schema, plan.paths, columns_of(view))
        return table.filter(pc.is_in(pa.array(keys(table, entity)), value_set=pa.array(wanted.tolist())))
    distinct, paths = pa.array(wanted.tolist(), ARROW_TYPES[entity.dtypes[0]]), plan.paths
    if source.bucket_by == entity.keys[0]:
        buckets = set(bucket_of(distinct, source.buckets).tolist())
        paths = tuple(path for path, bucket in plan.files if bucket in buckets)
    return read_files(plan.schema, paths, columns_of(view), keys=(entity.keys[0], distinct))
