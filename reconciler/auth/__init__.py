"""API keys and the check that an address open to the network has one.

May import ``host``, ``options`` and ``errors``.
"""
