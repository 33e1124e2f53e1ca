"""Writes plate reads from Kafka into TimescaleDB."""

from alpr_service import run

run("kafka-consumer")
