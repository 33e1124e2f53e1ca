"""Accepted desired states (generations): numbers, storage, edits, outcomes, preview and rollback.

``desired_state_files`` reads and edits the files, one operation at a time; every change ends in
``acceptance``, which numbers it and passes it to the loop. ``store`` keeps the generations on disk
(``records``, ``record``), ``outcomes`` records how they end. ``preview`` forecasts an edit, ``rollback``
restores an earlier generation. ``writes`` is the interface for callers, ``origin`` that of a git work tree.

May import ``audit``, ``controller``, ``desired_state``, ``planning``, ``model``, ``host``.
"""
