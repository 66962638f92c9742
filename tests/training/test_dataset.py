"""The rows of a training, from a real lake in a temporary folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from headway.core.clock import ManualClock
from headway.core.errors import DefinitionError, Forbidden, InvalidValue
from headway.core.settings import Settings
from headway.core.times import DAY
from headway.features.historical import offline_features
from headway.features.labels import to_matrix
from headway.features.lake.reader import LakeReader
from headway.features.lake.tables import Location
from headway.governance.audit_event import MemoryAudit
from headway.training.dataset import EVALUATE, SPLIT, TRAIN, collect, pin_snapshots, read_spine
from headway.training.recipes.xgboost import assemble
from tests.training import world


@pytest.fixture
def reader(settings: Settings, clock: ManualClock) -> LakeReader:
    location = Location.of(settings)
    world.fill_lake(location, clock)
    return LakeReader(location, MemoryAudit(clock), clock)


def test_the_spine_holds_both_ranges_and_no_label_from_the_future(reader: LakeReader, clock: ManualClock) -> None:
    snapshots = pin_snapshots(world.job, reader)
    assert set(snapshots) == {"events.returns", "events.visits"}
    spine = read_spine(world.job, reader, as_of=world.AS_OF, principal=world.principal(clock), snapshots=snapshots)
    at, split = spine["event_time"].to_numpy(), spine[SPLIT].to_numpy()
    end = world.AS_OF - world.DELAY
    middle = end - 14 * DAY
    known = world.tables()["returns"]
    times = known["event_time"].to_numpy()
    assert at[split == EVALUATE].tolist() == times[(times >= middle) & (times < end)].tolist()
    assert at[split == TRAIN].tolist() == times[(times >= middle - 41 * DAY) & (times < middle - DAY)].tolist()
    assert (at + world.DELAY <= world.AS_OF).all()


def test_late_labels_are_left_out_where_the_delay_is_declared_too_short(reader: LakeReader, clock: ManualClock) -> None:
    optimistic = replace(world.job, label_delay="0s")
    spine = read_spine(
        optimistic, reader, as_of=world.AS_OF, principal=world.principal(clock),
        snapshots=pin_snapshots(optimistic, reader),
    )  # fmt: skip
    assert spine["event_time"].to_numpy().max() + world.DELAY <= world.AS_OF


def test_ranges_without_rows_and_missing_columns_are_named(reader: LakeReader, clock: ManualClock) -> None:
    who, pins = world.principal(clock), pin_snapshots(world.job, reader)
    with pytest.raises(InvalidValue, match=r"job\.evaluate: no labelled rows of returns in \[2018"):
        late = world.AS_OF + 100 * DAY
        read_spine(replace(world.job, train="200d"), reader, as_of=late, principal=who, snapshots=pins)
    with pytest.raises(InvalidValue, match=r"job\.train"):
        read_spine(replace(world.job, gap="50d"), reader, as_of=world.AS_OF, principal=who, snapshots=pins)
    with pytest.raises(DefinitionError, match=r"no column 'churned'; expected .*returned"):
        read_spine(replace(world.job, label="churned"), reader, as_of=world.AS_OF, principal=who, snapshots=pins)
    with pytest.raises(Forbidden, match="data:read"):
        read_spine(world.job, reader, as_of=world.AS_OF, principal=world.principal(clock, "train:shop"), snapshots=pins)


def test_collect_and_assemble_part_the_rows_whatever_the_order_of_blocks(
    reader: LakeReader, clock: ManualClock
) -> None:
    who, pins = world.principal(clock), pin_snapshots(world.job, reader)
    spine = read_spine(world.job, reader, as_of=world.AS_OF, principal=who, snapshots=pins)
    table = offline_features(spine, world.shop_v1, reader, who, who.purpose, snapshots=pins)
    order = np.random.default_rng(0).permutation(len(table))
    blocks = [table.take(pa.array(part)) for part in np.array_split(order, 5)]
    evaluation = collect(blocks, world.job)
    features = world.shop_v1.features
    split = table[SPLIT].to_numpy()
    whole = to_matrix(table, features)
    np.testing.assert_array_equal(evaluation.matrix, whole[split == EVALUATE])
    np.testing.assert_array_equal(evaluation.event_time, table["event_time"].to_numpy()[split == EVALUATE])
    matrix, label = assemble([block.filter(block[SPLIT].to_numpy() == TRAIN) for block in blocks], features, "returned")
    np.testing.assert_array_equal(matrix, whole[split == TRAIN])
    np.testing.assert_array_equal(label, table["returned"].to_numpy()[split == TRAIN])
    seen = {feature.name: feature for feature in evaluation.schema.features}
    assert seen["amount"].maximum == matrix[:, features.index("amount")].max()
    assert seen["activity__amount_mean_7d"].nulls
    assert not seen["amount"].nulls
