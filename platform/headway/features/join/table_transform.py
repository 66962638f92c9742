"""A service's transformations over tables of label rows, and the service as workers get it."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headway.core.times import EVENT_TIME
from headway.core.types import Columns
from headway.features.arrow import times
from headway.features.definitions import FeatureService
from headway.features.kernel import transform


def transformed(service: FeatureService, table: pa.Table) -> pa.Table:
    """Return the table with the outputs of the service's transformations."""
    if not service.transformations:
        return table
    names = {name for step in service.transformations for name in step.inputs} & set(table.column_names)
    columns: Columns = {name: _numeric(table[name]) for name in names}
    made = transform(service, columns, times(table, EVENT_TIME))
    for step in service.transformations:
        for name in step.outputs:
            table = table.append_column(name, pa.array(made[name]))
    return table


def _numeric(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    """Return a column as transformations take it: what is missing is NaN, and None among strings."""
    if pa.types.is_boolean(column.type) and column.null_count:
        column = column.cast(pa.float32())
    return np.asarray(column.to_numpy())


def pack_service(service: FeatureService) -> bytes:
    """Pickle a service with its functions' source modules, which workers need not be able to import."""
    from ray import cloudpickle

    modules = {step.function.__module__ for step in service.transformations}
    own = {name for name in modules if name == "__main__" or name.startswith("headway.")}
    registered = [sys.modules[name] for name in sorted(modules - own)]
    for module in registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(service)
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


def load_service(packed: bytes) -> FeatureService:
    """Return a service that `pack_service` packed."""
    from ray import cloudpickle

    service: FeatureService = cloudpickle.loads(packed)
    return service
