"""The reference profile of a model's inputs and score, and exact counts over its bins: what drift is measured with.

Layout of a flat count vector (int64): for every feature in order and then the score, k + 2 numbers for k edges: bin i
holds values in (edge[i−1], edge[i]] (the first from −∞, bin k up to +∞), the last number counts missing values. Edges
are the 255 quantiles i/256 of the reference; a value that fills several of them gets a bin of its own (an edge just
below it), so that point masses are compared as such. Vectors over the same profile merge by addition.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from headway.core.canonical import canonical, sha256
from headway.core.errors import CorruptState, InvalidValue
from headway.core.types import Int64, Matrix

Float32 = npt.NDArray[np.float32]
SCORE = "score"
_BINS = 256
_BUFFERED = 512
_FEATURE_STEP = 1 << 33


class BinnedColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of the reference."""

    name: str
    edges: list[float]
    """Strictly ascending, each exactly a float32; at most 255."""
    counts: list[int]
    """len(edges) + 2 reference counts, the last of missing values."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference range looked like to the model."""

    rows: int
    columns: list[BinnedColumn]
    """The features in model order, then the score."""

    @property
    def names(self) -> list[str]:
        """Names in layout order, the score last."""
        return [column.name for column in self.columns]

    @property
    def bins(self) -> int:
        """Length of a flat count vector."""
        return sum(len(column.counts) for column in self.columns)

    def flat(self) -> Int64:
        """Return the reference counts in the flat layout."""
        return np.array([count for column in self.columns for count in column.counts], np.int64)

    def split(self, flat: Int64) -> dict[str, Int64]:
        """Return the counts per column of a flat vector; InvalidValue if it belongs to another profile."""
        if flat.shape != (self.bins,):
            raise InvalidValue("counts", f"{flat.shape} numbers where the profile has {self.bins} bins")
        ends = np.cumsum([len(column.counts) for column in self.columns])
        return dict(zip(self.names, np.split(flat, ends[:-1]), strict=True))

    def to_json(self) -> bytes:
        """Return canonical JSON."""
        return canonical(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, data: bytes) -> Profile:
        """Return the profile of its JSON; CorruptState if it is not one."""
        try:
            profile = msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise CorruptState(f"not a reference profile: {error}", hint="train and register the model again") from None
        for column in profile.columns:
            edges = np.array(column.edges, np.float64)
            exact = bool((edges.astype(np.float32) == edges).all())
            if not exact or not bool((np.diff(edges) > 0).all()) or len(column.counts) != len(edges) + 2:
                raise CorruptState(
                    f"not a reference profile: {column.name} has wrong edges", hint="train and register again"
                )
        return profile

    def sha256(self) -> str:
        """Return the hash of the canonical JSON: counts over other edges must not be merged."""
        return sha256(self.to_json())


def build_profile(matrix: Matrix, names: list[str], scores: Float32) -> Profile:
    """Return the profile of a reference: float32[n, k] inputs with their names, float32[n] scores."""
    if matrix.ndim != 2 or matrix.shape[1] != len(names) or len(scores) != len(matrix):
        raise InvalidValue("matrix", f"{matrix.shape} values for {len(names)} names and {len(scores)} scores")
    empty = [
        BinnedColumn(name=name, edges=_edges(column), counts=[])
        for name, column in zip([*names, SCORE], [*matrix.T, scores], strict=True)
    ]
    counter = Counter(
        Profile(rows=0, columns=[msgspec.structs.replace(c, counts=[0] * (len(c.edges) + 2)) for c in empty])
    )
    counter.add(matrix, scores)
    counts = counter.profile.split(counter.drain())
    return Profile(
        rows=len(matrix), columns=[msgspec.structs.replace(c, counts=counts[c.name].tolist()) for c in empty]
    )


def _edges(values: Float32) -> list[float]:
    there = np.sort(values[~np.isnan(values)]) + np.float32(0)
    if len(there) == 0:
        return []
    ranks = np.ceil(np.arange(1, _BINS) * len(there) / _BINS).astype(np.int64) - 1
    quantiles, times = np.unique(there[np.maximum(ranks, 0)], return_counts=True)
    masses = quantiles[times > 1]
    with np.errstate(over="ignore", under="ignore"):
        below = np.nextafter(masses, np.float32(-np.inf))
    edges = np.unique(np.concatenate([quantiles, below]).astype(np.float32))
    return [float(edge) for edge in edges[np.isfinite(edges)]]


class Counter:
    """Counts rows into a profile's bins, many at a time: one search over all features' edges together."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._width = len(profile.columns)
        self._shift = np.arange(self._width, dtype=np.int64) * _FEATURE_STEP
        edges = [
            _ordered(np.array([*column.edges, np.inf], np.float32)) + shift
            for column, shift in zip(profile.columns, self._shift, strict=True)
        ]
        self._edges = np.concatenate(edges)
        self._position = np.arange(self._width, dtype=np.int64)
        self._total = np.zeros(profile.bins, np.int64)
        self._buffer: list[tuple[Matrix, Float32]] = []
        self._rows = 0

    def add(self, matrix: Matrix, scores: Float32) -> None:
        """Count n rows: float32[n, k] model input and float32[n] scores; they must not change afterwards."""
        self._buffer.append((matrix, scores))
        self._rows += len(matrix)
        if self._rows >= _BUFFERED:
            self._collapse()

    def drain(self) -> Int64:
        """Return the flat counts since the last drain."""
        self._collapse()
        total, self._total = self._total, np.zeros(self.profile.bins, np.int64)
        return total

    def _collapse(self) -> None:
        if not self._rows:
            return
        values = np.empty((self._rows, self._width), np.float32)
        np.concatenate([matrix for matrix, _ in self._buffer], out=values[:, :-1])
        np.concatenate([scores for _, scores in self._buffer], out=values[:, -1])
        self._buffer, self._rows = [], 0
        bins = np.searchsorted(self._edges, (_ordered(values) + self._shift).ravel())
        self._total += np.bincount((bins.reshape(values.shape) + self._position).ravel(), minlength=len(self._total))


def _ordered(values: Float32) -> Int64:
    """Return integers in the order of the floats; −0 equals 0, and every NaN comes after infinity."""
    bits = (values + np.float32(0)).view(np.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    missing = np.isnan(values)
    if missing.any():
        ordered[missing] = 0x7FC00000
    return ordered
