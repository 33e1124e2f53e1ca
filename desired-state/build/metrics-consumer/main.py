"""Turns the pipeline's own measurements on Kafka into Prometheus metrics."""

from alpr_service import run

run("metrics-consumer")
