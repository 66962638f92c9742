"""A Kafka cluster: librdkafka's own mock of the protocol, on real sockets, with the faults that a test asks for."""

from __future__ import annotations

import ctypes
from importlib import util
from pathlib import Path

_UNKNOWN_TOPIC = 3
_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int


def _library() -> ctypes.CDLL:
    import confluent_kafka  # noqa: F401  # loads what the library depends on

    spec = util.find_spec("confluent_kafka")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).parent.parent
    lib = ctypes.CDLL(str(next(site.glob("confluent_kafka.libs/librdkafka*"))))
    for name, result, *arguments in (
        ("conf_new", _POINTER),
        ("conf_set", _INT, _POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t),
        ("new", _POINTER, _INT, _POINTER, _TEXT, ctypes.c_size_t),
        ("destroy", None, _POINTER),
        ("mock_cluster_new", _POINTER, _POINTER, _INT),
        ("mock_cluster_destroy", None, _POINTER),
        ("mock_cluster_bootstraps", _TEXT, _POINTER),
        ("mock_topic_create", _INT, _POINTER, _TEXT, _INT, _INT),
        ("mock_topic_set_error", None, _POINTER, _TEXT, _INT),
        ("mock_broker_set_down", _INT, _POINTER, ctypes.c_int32),
        ("mock_broker_set_up", _INT, _POINTER, ctypes.c_int32),
    ):
        function = getattr(lib, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


class MockKafka:
    """One broker; a partition holds 5 MiB, then the oldest messages go."""

    def __init__(self) -> None:
        self._lib = _library()
        error = ctypes.create_string_buffer(512)
        conf = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"2", error, 512)
        self._host = self._lib.rd_kafka_new(0, conf, error, 512)
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._host, 1)
        self.servers = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create(self, name: str, partitions: int) -> None:
        assert self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0

    def vanish(self, name: str) -> None:
        """Answer as if there were no such topic."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), _UNKNOWN_TOPIC)

    def appear(self, name: str) -> None:
        """Let a topic that vanished be there again."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), 0)

    def down(self) -> None:
        assert self._lib.rd_kafka_mock_broker_set_down(self._cluster, 1) == 0

    def up(self) -> None:
        assert self._lib.rd_kafka_mock_broker_set_up(self._cluster, 1) == 0

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._host)
