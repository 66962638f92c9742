"""The name under which Feast's configuration finds the offline store and, beside it, its settings."""

from __future__ import annotations

from headway.features.feast.offline import RayPointInTimeOfflineStore, RayPointInTimeOfflineStoreConfig

__all__ = ["RayPointInTimeOfflineStore", "RayPointInTimeOfflineStoreConfig"]
