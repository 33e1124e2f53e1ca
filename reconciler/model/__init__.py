"""Values: the stack, desired state, observed state, the ledger, back-off, units.

Immutable and without I/O: no file, clock, random number or log. May import ``errors``.
"""
