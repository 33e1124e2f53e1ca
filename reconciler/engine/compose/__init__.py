"""Docker Compose: finds it, runs it, locates its error messages in the files.

May import ``model``, ``host`` and ``errors``; runs containers only through the Docker adapter's engine.
"""
