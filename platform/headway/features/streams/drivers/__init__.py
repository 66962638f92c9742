"""Streams on Redis and on Kafka; one conformance suite tests both."""

from __future__ import annotations

from urllib.parse import parse_qsl

from headway.core.errors import DefinitionError
from headway.features.streams.port import EventStream

_KAFKA = "kafka://"
_OPTIONS = ("security.", "sasl.", "ssl.")
"""Beginnings of librdkafka's settings that an address may have: how to enter, nothing that durability rests on."""


def open_stream(url: str) -> EventStream:
    """Return the driver of `kafka://host:port,host:port?option=value`, else that of a Redis-protocol server.

    The options are librdkafka's of TLS and SASL, percent-encoded. Raises DefinitionError for others, and where Kafka is
    asked for and its client is not installed.
    """
    if not url.startswith(_KAFKA):
        from headway.features.streams.drivers.redis import RedisStream

        return RedisStream(url)
    servers, _, query = url.removeprefix(_KAFKA).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in options if not name.startswith(_OPTIONS)]
    if unknown:
        raise DefinitionError(
            f"the option {unknown[0]!r} is not taken",
            field="stream_url",
            expected="options of librdkafka that begin with security., sasl. or ssl.",
        )
    try:
        import confluent_kafka  # noqa: F401  # only whether it is there
    except ImportError:
        raise DefinitionError(
            "the Kafka client is not installed", field="stream_url", expected="pip install 'headway[kafka]'"
        ) from None
    from headway.features.streams.drivers.kafka import KafkaStream

    return KafkaStream(servers, options)


def stream_name(url: str) -> str:
    """Return an address as the name of its stream: without Kafka's options, which may change and hold a password."""
    return url.partition("?")[0] if url.startswith(_KAFKA) else url
