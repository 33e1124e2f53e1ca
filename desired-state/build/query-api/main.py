"""Answers queries: by plate from TimescaleDB, by text from OpenSearch."""

from alpr_service import run

run("query-api")
