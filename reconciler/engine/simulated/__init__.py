"""An engine in memory, for trying things and for tests. Obeys, or misbehaves on command.

May import ``model`` and ``errors``.
"""
