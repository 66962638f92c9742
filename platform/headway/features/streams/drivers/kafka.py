"""Event streams on Kafka, through librdkafka; partitions are assigned by hand and offsets kept by the reader.

Consumer groups are not used: who reads a partition is decided by its checkpoint, and a commit to the broker would be a
second truth. Kafka forgets by its own retention, so `release` does nothing; brokers decide whether topics are made for
a client. A topic that was deleted and made anew is told by its end, which lies before what was read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headway.core.errors import Conflict, HeadwayError, TooLarge, Unavailable
from headway.features.streams.port import (
    MAX_MESSAGE,
    Bounds,
    Message,
    OffsetBeyondEnd,
    RetentionGap,
    Topic,
    TopicGone,
    partition_of,
)

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

_TIMEOUT_S = 10.0
_RETRY_AFTER_S = 1.0
_QUEUE_KIB = 16 * 1024
_CONSUMER = {
    "group.id": "headway",  # librdkafka wants one; nothing is committed to it
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "queued.max.messages.kbytes": _QUEUE_KIB,
    "fetch.wait.max.ms": 100,
}
_PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "message.max.bytes": MAX_MESSAGE + 64 * 1024,
    "message.timeout.ms": int(_TIMEOUT_S * 1_000),
    "topic.metadata.propagation.max.ms": 1_000,
    "linger.ms": 2,
}


class KafkaStream:
    """Topics of one cluster; not to be shared by threads."""

    def __init__(self, servers: str, options: Mapping[str, str] | None = None) -> None:
        """Connect on first use.

        Args:
            servers: `host:port`, several by comma.
            options: More of librdkafka's settings, such as those of TLS and SASL.
        """
        self._common: dict[str, Any] = {"bootstrap.servers": servers, "log_level": 2, **(options or {})}
        self._own_producer: Producer | None = None
        self._asked: Consumer | None = None
        self._readers: dict[tuple[str, int], tuple[Consumer, int]] = {}
        """Per partition, who reads it and the offset that comes next."""

    def topic(self, name: str) -> Topic:
        """Return the topic; TopicGone where there is none."""
        from confluent_kafka import KafkaException

        try:
            found = self._metadata().list_topics(name, timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise _away(error.args[0]) from error
        topic = found.topics.get(name)
        if topic is None or topic.error is not None or not topic.partitions:
            raise _gone(name)
        return Topic(name=name, identity=found.cluster_id or "", partitions=len(topic.partitions))

    def create(self, name: str, *, partitions: int) -> Topic:
        """Make a topic with the brokers' own replication and retention, or return it as it is."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not export it explicitly
            AdminClient,
            NewTopic,
        )

        try:
            topic = self.topic(name)
        except TopicGone:
            client = AdminClient(self._common)
            wanted = NewTopic(name, num_partitions=partitions, replication_factor=-1)
            try:
                client.create_topics([wanted], operation_timeout=_TIMEOUT_S)[name].result(_TIMEOUT_S)
                topic = self._appeared(name)
            except (KafkaException, TimeoutError) as error:
                why = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
                raise Unavailable(
                    f"the brokers do not make the topic {name!r}: {why}",
                    retry_after_s=_RETRY_AFTER_S,
                    hint=f"have the owners of the cluster make it, with {partitions} partitions",
                ) from error
        if topic.partitions != partitions:
            raise Conflict(
                f"{name} has {topic.partitions} partitions, not {partitions}", hint="leave the number of partitions out"
            )
        return topic

    def publish(self, topic: Topic, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Append pairs; returns when all replicas in sync have them."""
        for i, (_, value) in enumerate(messages):
            if len(value) > MAX_MESSAGE:
                raise TooLarge(f"{len(value):,} bytes", field=f"messages[{i}]", hint=f"at most {MAX_MESSAGE:,}")
        producer = self._producer()
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is not None:
                failed.append(error)

        deadline = time.monotonic() + _TIMEOUT_S
        for key, value in messages:
            while True:
                try:
                    producer.produce(
                        topic.name,
                        value=value,
                        key=key,
                        partition=partition_of(key, topic.partitions),
                        on_delivery=delivered,
                    )
                    break
                except BufferError:
                    producer.poll(0.05)
                    if time.monotonic() > deadline:
                        raise self._refused(topic, "its queue is full") from None
        left = producer.flush(_TIMEOUT_S)
        if left or failed:
            producer.purge()
            producer.flush(_TIMEOUT_S)
            raise self._refused(topic, failed[0].str() if failed else f"{left} messages are not confirmed")

    def read(self, topic: Topic, partition: int, offset: int, *, limit: int, wait_s: float = 0.0) -> list[Message]:
        """Return messages from an offset on; offsets that a compaction took are left out."""
        consumer = self._reader(topic, partition, offset)
        found = consumer.consume(1, timeout=wait_s)
        if found and limit > 1:
            found += consumer.consume(limit - 1, timeout=0)
        messages: list[Message] = []
        for item in found:
            error = item.error()
            if error is not None:
                self._forget(topic.name, partition)
                if messages:
                    break
                raise self._fault(topic, partition, offset, error)
            messages.append(
                Message(
                    offset=item.offset() or 0,
                    key=bytes(item.key() or b""),
                    value=bytes(item.value() or b""),
                    published=item.timestamp()[1] * 1_000,
                )
            )
        if not messages:
            self.topic(topic.name)
            return []
        if (topic.name, partition) in self._readers:
            self._readers[topic.name, partition] = (consumer, messages[-1].offset + 1)
        return messages

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Return which offsets the broker has."""
        from confluent_kafka import KafkaException

        self.topic(topic.name)
        try:
            first, end = self._metadata().get_watermark_offsets(_place(topic, partition), timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise _away(error.args[0]) from error
        return Bounds(first=first, end=end)

    def release(self, topic: Topic, partition: int, offset: int) -> None:
        """Nothing: the topic's retention decides."""

    def close(self) -> None:
        """Close the connections; what is not confirmed has been reported."""
        for name, partition in list(self._readers):
            self._forget(name, partition)
        if self._asked is not None:
            self._asked.close()
            self._asked = None
        self._own_producer = None

    def _appeared(self, name: str) -> Topic:
        """Return a topic that was made, once the brokers tell of it."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                return self.topic(name)
            except TopicGone:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _producer(self) -> Producer:
        if self._own_producer is None:
            from confluent_kafka import Producer

            self._own_producer = Producer({**self._common, **_PRODUCER})
        return self._own_producer

    def _metadata(self) -> Consumer:
        if self._asked is None:
            from confluent_kafka import Consumer

            self._asked = Consumer({**self._common, **_CONSUMER})
        return self._asked

    def _reader(self, topic: Topic, partition: int, offset: int) -> Consumer:
        """Return the partition's consumer, which will give the offset next."""
        consumer, position = self._readers.get((topic.name, partition), (None, -1))
        if consumer is None:
            from confluent_kafka import Consumer

            consumer = Consumer({**self._common, **_CONSUMER})
        if position != offset:
            consumer.assign([_place(topic, partition, offset)])
            self._readers[topic.name, partition] = (consumer, offset)
        return consumer

    def _forget(self, name: str, partition: int) -> None:
        consumer, _ = self._readers.pop((name, partition))
        consumer.close()

    def _fault(self, topic: Topic, partition: int, offset: int, error: KafkaError) -> HeadwayError:
        from confluent_kafka import KafkaError as Codes

        if error.code() in (Codes._AUTO_OFFSET_RESET, Codes.OFFSET_OUT_OF_RANGE):
            bounds = self.bounds(topic, partition)
            if offset > bounds.end:
                return OffsetBeyondEnd(topic.name, partition, offset, bounds.end)
            return RetentionGap(topic.name, partition, offset, bounds.first)
        if error.code() in (Codes.UNKNOWN_TOPIC_OR_PART, Codes._UNKNOWN_TOPIC, Codes._UNKNOWN_PARTITION):
            return _gone(topic.name)
        return _away(error)

    def _refused(self, topic: Topic, why: str) -> Unavailable:
        """Return why a publication failed; the metadata tells whether the topic is still there."""
        try:
            self.topic(topic.name)
        except Unavailable as error:
            return error
        return Unavailable(f"{topic.name} takes no messages: {why}", retry_after_s=_RETRY_AFTER_S, hint="repeat it")


def _place(topic: Topic, partition: int, offset: int = 0) -> TopicPartition:
    from confluent_kafka import TopicPartition

    return TopicPartition(topic.name, partition, offset)


def _gone(name: str) -> TopicGone:
    return TopicGone(
        f"there is no topic {name!r} in the cluster",
        retry_after_s=_RETRY_AFTER_S,
        hint="ask its owner; what was read of it is safe",
    )


def _away(error: KafkaError) -> Unavailable:
    return Unavailable(f"Kafka does not answer: {error.str()}", retry_after_s=_RETRY_AFTER_S, hint="see its brokers")
