"""Keeps the messages that other consumers could not process."""

from alpr_service import run

run("dlq-consumer")
