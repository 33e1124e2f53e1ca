"""The adapter for Docker Compose: finds it, runs it, locates its error messages in the files.

May import ``model``, ``host`` and ``errors``; knows no engine adapter.
"""
