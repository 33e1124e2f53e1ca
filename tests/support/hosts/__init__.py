"""Hosts for tests: Debian file systems, systemd in a container, git servers."""
