from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headway.core.errors import CorruptState, InvalidValue
from headway.features.profile import Counter, Profile, build_profile

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
MATRICES = hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(3)), elements=FLOATS)


def naive(profile: Profile, matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[int]:
    counts: list[int] = []
    for column, values in zip(profile.columns, matrix.T, strict=True):
        bins = [0] * (len(column.edges) + 2)
        for value in values.tolist():
            bins[-1 if value != value else sum(edge < value for edge in column.edges)] += 1
        counts += bins
    return counts


@given(MATRICES, MATRICES)
def test_counts_agree_with_comparing_each_value_to_each_edge(
    reference: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    live: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    profile = build_profile(reference[:, :2], ["a", "b"], reference[:, 2])
    assert profile.flat().tolist() == naive(profile, reference)
    counter = Counter(profile)
    counter.add(live[:, :2], live[:, 2])
    counter.add(live[:, :2], live[:, 2])
    assert counter.drain().tolist() == [2 * n for n in naive(profile, live)]
    assert counter.drain().sum() == 0
    assert Profile.from_json(profile.to_json()) == profile


def test_a_point_mass_has_a_bin_of_its_own() -> None:
    values = np.concatenate([np.zeros(500), np.linspace(0.1, 1, 500)]).astype(np.float32)
    profile = build_profile(values[:, None], ["a"], values)
    counts = profile.split(profile.flat())["a"]
    assert 500 in counts.tolist()
    assert len(profile.columns[0].edges) <= 255
    assert counts[-1] == 0
    assert counts.sum() == 1000


def test_an_even_column_fills_all_bins_evenly() -> None:
    values = np.random.default_rng(1).normal(size=25_600).astype(np.float32)
    profile = build_profile(values[:, None], ["a"], values)
    counts = profile.split(profile.flat())["a"][:-1]
    assert len(counts) == 256
    assert counts.max() - counts.min() <= 2


def test_wrong_shapes_and_files_are_refused() -> None:
    matrix = np.zeros((3, 2), np.float32)
    with pytest.raises(InvalidValue):
        build_profile(matrix, ["a"], np.zeros(3, np.float32))
    profile = build_profile(matrix, ["a", "b"], np.zeros(3, np.float32))
    with pytest.raises(InvalidValue):
        profile.split(np.zeros(2, np.int64))
    with pytest.raises(CorruptState):
        Profile.from_json(b'{"rows": 1}')
    with pytest.raises(CorruptState):
        Profile.from_json(b'{"rows":1,"columns":[{"name":"a","edges":[2.0,1.0],"counts":[0,0,0,0]}]}')
