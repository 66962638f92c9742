"""Feast's offline store, with our point-in-time rules: usable from any Feast repository by naming the class.

A retrieval never moves the source. Tasks read keys and times of their row groups, hold them against the label rows, and
send back only the rows that may win; once the winners are known, tasks read the features of those. So nothing is
partitioned, sorted or spilled, and a task needs memory for its row groups and a bounded number of label rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _get_requested_feature_views_to_features_dict

from headway.core.errors import InvalidValue
from headway.features.feast.entity_rows import all_entities, entity_table
from headway.features.feast.parquet_source import Source, target, write_folder
from headway.features.feast.source_join import (
    Join,
    Pull,
    fetch,
    latest,
    latest_of_split,
    offsets_of,
    rows_of_split,
    run_all,
)
from headway.features.join.point_in_time import KeyIndex


class RayPointInTimeOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast has no types
    """The `offline_store` part of feature_store.yaml."""

    type: Literal["headway.features.offline_store.RayPointInTimeOfflineStore"] = (
        "headway.features.offline_store.RayPointInTimeOfflineStore"
    )
    """Name of the class."""
    parallel_above_mb: int = 64
    """A source of which more (needed columns, uncompressed) is read goes through Ray; less stays in this process."""
    split_mb: int = 64
    """Aim for what one task reads; a row group is never cut."""
    labels_per_pass: int = 4_000_000
    """Label rows that a task holds a source against at a time: some 50 bytes of memory each."""
    object_store_mb: int = 256
    """Object store of the local Ray that is started where none is connected and RAY_ADDRESS names none."""


class _Job(RetrievalJob):  # type: ignore[misc]
    """A retrieval that happens when its result is asked for."""

    def __init__(
        self,
        evaluate: Callable[[], pa.Table],
        config: Any,
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[Any] = (),
        metadata: Any = None,
    ) -> None:
        self._evaluate = evaluate
        self._config = config
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return self._on_demand

    @property
    def metadata(self) -> Any:
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002  # Feast's signature
        return self._evaluate()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as the saved dataset; a path that ends in .parquet is a file, any other a folder."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise InvalidValue("storage", f"{type(storage).__name__} cannot be written", hint="SavedDatasetFileStorage")
        options = storage.file_options
        filesystem, path = target(self._config, options.uri, options.s3_endpoint_override)
        if not allow_overwrite and filesystem.get_file_info(path).type != pafs.FileType.NotFound:
            raise SavedDatasetLocationAlreadyExists(location=options.uri)
        table = self.to_arrow(timeout=timeout)
        if path.endswith(".parquet"):
            filesystem.create_dir(str(Path(path).parent), recursive=True)
            pq.write_table(table, path, filesystem=filesystem)
        else:
            write_folder(table, path, filesystem, replace=True)


class RayPointInTimeOfflineStore(OfflineStore):  # type: ignore[misc]
    """Training sets and materialisation reads from Parquet files."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Return the entity rows, in their order and with all their columns, with features as of their time.

        InvalidValue names the column of `entity_df`, or the view, that does not fit.
        """
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        wanted, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        if entity_df is None:
            entity_df = all_entities(config, list(wanted), kwargs.get("start_date"), kwargs.get("end_date"))
        labels, time_column = entity_table(entity_df)
        joins = [
            Join.of(config, view, names, labels, time_column, full_feature_names) for view, names in wanted.items()
        ]
        taken = set(labels.column_names)
        for name in itertools.chain.from_iterable(join.outputs for join in joins):
            if name in taken:
                hint = "" if full_feature_names else "full_feature_names=True"
                raise InvalidValue(name, "both a column of entity_df and a feature, or two features", hint=hint)
            taken.add(name)

        def evaluate() -> pa.Table:
            table = labels
            for join in joins:
                found = join.run(config.offline_store, labels, time_column, cutoff=filter_by_created_timestamp)
                for name, column in zip(join.outputs, found.columns, strict=True):
                    table = table.append_column(name, column)
            return table

        times = pc.min_max(labels[time_column])
        return _Job(
            evaluate,
            config,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in labels.column_names if name != time_column],
                min_event_timestamp=_moment(times["min"]),
                max_event_timestamp=_moment(times["max"]),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return the newest row per key between two times, both included; rows with a null key belong to nobody."""

        def evaluate() -> pa.Table:
            pull = Pull.of(config, data_source, join_key_columns, feature_name_columns, timestamp_field,
                            created_timestamp_column, start_date, end_date)  # fmt: skip
            found = list(run_all(latest_of_split, [(pull, split) for split in pull.splits], pull.settings, pull.volume))
            offsets = offsets_of(pull.splits)
            rows = np.concatenate([part.rows + begin for part, begin in zip(found, offsets, strict=False)])
            newest = latest(
                KeyIndex.of(pa.concat_tables([part.keys for part in found])),
                np.concatenate([part.event for part in found]),
                np.concatenate([part.created for part in found]),
            )
            table = fetch(pull.columns, pull.splits, np.sort(rows[newest]), pull.settings, pull.volume)
            return table if join_key_columns else _with_dummy(table)

        return _Job(evaluate, config)

    @staticmethod
    def pull_all_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return all rows between two times, both included, in file order."""

        def evaluate() -> pa.Table:
            pull = Pull.of(config, data_source, join_key_columns, feature_name_columns, timestamp_field,
                            created_timestamp_column, start_date, end_date)  # fmt: skip
            parts = run_all(rows_of_split, [(pull, split) for split in pull.splits], pull.settings, pull.volume)
            table = pa.concat_tables(parts)
            return table if join_key_columns else _with_dummy(table)

        return _Job(evaluate, config)

    @staticmethod
    def offline_write_batch(
        config: Any, feature_view: Any, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to a view's file or folder; they come last, so that they win over equal times."""
        source = Source.open(config, feature_view.batch_source, feature_view.name)
        if table.column_names != source.schema.names:
            raise InvalidValue(
                feature_view.name,
                f"a batch with the columns {', '.join(table.column_names)}",
                hint=f"exactly {', '.join(source.schema.names)}",
            )
        if source.iceberg:
            raise InvalidValue(feature_view.name, "an Iceberg table is not written as plain files")
        table = table.cast(source.schema)
        options = feature_view.batch_source.file_options
        filesystem, path = target(config, options.uri, options.s3_endpoint_override)
        if filesystem.get_file_info(path).type == pafs.FileType.Directory:
            write_folder(table, path, filesystem)
        else:
            partial = f"{path}.{uuid4().hex}.partial"
            with pq.ParquetWriter(partial, source.schema, filesystem=filesystem) as writer:
                for split in source.splits(table.column_names, 1)[0]:
                    writer.write_table(split.read(table.column_names))
                writer.write_table(table)
            filesystem.move(partial, path)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(config: Any, data: Any, source: Any, logging_config: Any, registry: Any) -> None:  # noqa: ARG004
        """Add a file of logged features to the destination folder."""
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise InvalidValue("logging_config", f"{type(destination).__name__} cannot be written")
        table = pq.read_table(data) if isinstance(data, Path) else data
        filesystem, path = target(config, destination.path, destination.s3_endpoint_override)
        write_folder(table, path, filesystem, partitioning=destination.partition_by)


def _with_dummy(table: pa.Table) -> pa.Table:
    return table.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * table.num_rows, pa.string()))


def _moment(scalar: pa.Scalar) -> datetime | None:
    """Return a time of the metadata."""
    return pd.Timestamp(scalar.as_py()).to_pydatetime() if scalar.is_valid else None
