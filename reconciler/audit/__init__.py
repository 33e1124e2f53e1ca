"""The audit log: an append-only chain of entries in SQLite.

``events`` turns what happens into entries, ``chain`` hashes them, ``query`` reads them back.
May import ``controller``, ``planning``, ``model``, ``host``.
"""
