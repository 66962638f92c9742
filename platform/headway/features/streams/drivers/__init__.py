"""Streams on Redis and on Kafka; one conformance suite tests both."""

from __future__ import annotations

from headway.core.errors import DefinitionError
from headway.features.streams.port import EventStream

_KAFKA = "kafka://"


def open_stream(url: str) -> EventStream:
    """Return the driver of an address: `kafka://host:port,host:port`, else that of a Redis-protocol server.

    Raises DefinitionError where Kafka is asked for and its client is not installed.
    """
    if not url.startswith(_KAFKA):
        from headway.features.streams.drivers.redis import RedisStream

        return RedisStream(url)
    try:
        import confluent_kafka  # noqa: F401  # only whether it is there
    except ImportError:
        raise DefinitionError(
            "the Kafka client is not installed", field="stream_url", expected="pip install 'headway[kafka]'"
        ) from None
    from headway.features.streams.drivers.kafka import KafkaStream

    return KafkaStream(url.removeprefix(_KAFKA))
