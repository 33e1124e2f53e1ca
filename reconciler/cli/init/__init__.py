"""``service-manager init``: writes a desired-state directory for an existing Compose project."""
