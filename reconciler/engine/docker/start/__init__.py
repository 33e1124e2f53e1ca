"""What Docker Compose does around the start of a container and the engine does not: files to copy in,
hooks."""
