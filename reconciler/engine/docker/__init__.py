"""The adapter for the Docker Engine.

``engine`` implements the port, ``observe`` reads state, ``container_commands`` and ``service_commands``
change containers, ``http`` is the client for reads and streams, ``parse`` turns responses into values. May
import ``engine.compose``, ``model``, ``host`` and ``errors``.
"""
