"""Matches plate reads from Kafka against config/alert_rules.yaml and tells people."""

from alpr_service import run

run("alert-engine")
