"""The adapter for Podman, through its Docker-compatible socket.

A flavour of the Docker adapter, which knows the words of both. ``engine`` adds what Podman lacks, ``address``
finds its socket, ``health_checks`` runs health checks where no timer does. May import ``engine.docker`` and
what that may import.
"""
