"""The adapter for Docker Compose: finds it, runs it, locates its error messages in the files.

``discovery`` finds the program (``release``: the bundled one, ``versions``: which versions are good,
``remedy``: how to install one). ``resolve`` turns Compose files into one model, ``engine`` creates containers
from it, ``labels`` computes Compose's config-hash, ``error_locations`` finds file and line of an error.

May import ``model``, ``host`` and ``errors``; knows no engine adapter.
"""
