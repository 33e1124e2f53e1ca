"""Access to the API: keys with roles, and the refusal to listen on the network without one.

``keys`` stores keys and finds the one of a request, ``credentials`` loads the key of the daemon's
environment, ``bind_check`` checks the address to listen on.
May import ``host``, ``model``, ``options`` and ``errors``.
"""
