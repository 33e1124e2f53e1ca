"""Indexes plate reads from Kafka in OpenSearch, which speaks Elasticsearch's protocol."""

from alpr_service import run

run("elasticsearch-consumer")
