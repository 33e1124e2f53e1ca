"""Access to the machine that any package may use: atomic file writes, locks, disk space, ports, the journal.

Also parsers of untrusted text (``yaml_positions``, ``stored_json``, ``untrusted``). Knows nothing of stacks
and containers. May import ``errors``.
"""
