"""Values that all packages share. Start with these modules:

- ``stack`` and ``desired``: the meaning of the files; ``accepted_state``: both, as a numbered generation;
- ``observed``: what the engine reports, and the commands it takes;
- ``ledger``: what the loop remembers between passes;
- ``edit``: a requested change of ``groups.yaml``.

Immutable and without I/O: no file, clock, random number or log. May import ``errors``.
"""
