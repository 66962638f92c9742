from __future__ import annotations

import pytest

from headway.core.errors import DefinitionError
from headway.features.streams.drivers import open_stream, stream_name
from headway.features.streams.drivers.kafka import KafkaStream
from headway.features.streams.drivers.redis import RedisStream
from tests.features.streams.kafka import MockKafka

SECURE = (
    "kafka://b1:9093,b2:9093?security.protocol=SASL_SSL&sasl.username=u&sasl.password=p%26%2B&ssl.ca.location=/ca.pem"
)


def test_an_address_says_how_to_enter() -> None:
    stream = open_stream(SECURE)
    assert isinstance(stream, KafkaStream)
    assert stream._common == {
        "bootstrap.servers": "b1:9093,b2:9093",
        "log_level": 2,
        "security.protocol": "SASL_SSL",
        "sasl.username": "u",
        "sasl.password": "p&+",
        "ssl.ca.location": "/ca.pem",
    }
    assert isinstance(open_stream("redis://localhost?db=1"), RedisStream)


def test_options_reach_the_client() -> None:
    cluster = MockKafka()
    try:
        cluster.create("payments", 3)
        url = f"kafka://{cluster.servers}?security.protocol="
        assert open_stream(f"{url}plaintext").topic("payments").partitions == 3
        with pytest.raises(Exception, match="carrier-pigeon"):
            open_stream(f"{url}carrier-pigeon").topic("payments")
    finally:
        cluster.close()


@pytest.mark.parametrize("option", ["acks", "enable.idempotence", "bootstrap.servers"])
def test_what_durability_rests_on_is_no_option(option: str) -> None:
    with pytest.raises(DefinitionError, match=option):
        open_stream(f"kafka://b1:9093?{option}=0")


def test_a_stream_keeps_its_name_when_its_password_changes() -> None:
    assert stream_name(SECURE) == "kafka://b1:9093,b2:9093"
    assert stream_name("redis://localhost?db=1") == "redis://localhost?db=1"
