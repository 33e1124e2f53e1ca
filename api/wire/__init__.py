"""What goes over the wire: schemas, views, request bodies, entity tags, problem documents, OpenAPI."""
