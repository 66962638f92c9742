"""The control store: small, versioned, fenced records (routing, loop state, leases). Port and drivers."""

from headway.core.control.memory import MemoryControlStore
from headway.core.control.port import ControlStore, Record
from headway.core.control.redis import RedisControlStore

__all__ = ["ControlStore", "MemoryControlStore", "Record", "RedisControlStore"]
