"""The machine under the daemon: atomic files, locks, disk space, the journal, YAML with positions.

Holds no product rule. May import ``errors``.
"""
