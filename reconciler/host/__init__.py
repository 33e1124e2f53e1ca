"""The machine: atomic files, locks, disk space, ports, the journal, YAML with positions.

Holds no product rule. May import ``errors``.
"""
