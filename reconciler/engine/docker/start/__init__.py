"""Does the part of a container's start and stop that Docker Compose does itself: files to copy in, hooks."""
