"""The reconcile loop: observe, plan, act, publish a snapshot.

Knows the engine port and no adapter. May import ``engine`` (the port), ``planning``, ``model``, ``host``.
``progress`` and ``step_outcomes`` are pure.
"""
