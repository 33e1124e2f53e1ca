"""An engine in memory, for trying the program and for tests, with scripted faults.

May import ``model`` and ``errors``.
"""
