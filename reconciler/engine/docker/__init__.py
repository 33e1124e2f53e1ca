"""The adapter for the Docker Engine.

``engine`` implements the port, ``observe`` reads state, ``orders`` changes containers, ``http`` is the
client
for long reads, ``parse`` turns answers into values. May import ``model``, ``host`` and ``errors``.
"""
