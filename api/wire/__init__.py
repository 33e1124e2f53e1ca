"""Formats on the wire: schemas, views, request bodies, entity tags, problem details, OpenAPI."""
