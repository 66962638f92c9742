"""Streams on Redis and on Kafka; one conformance suite tests both."""
