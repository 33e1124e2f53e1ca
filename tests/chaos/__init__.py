"""Rounds of edits and faults by a seed, and the invariants that must hold (PITFALLS section 3).

``python -m tests.chaos`` (``make chaos``) runs rounds and prints a table; ``test_chaos.py`` runs twenty of
them in ``make test``, ``proof.py`` shows that the suite finds each of several broken builds
(``broken_builds.py``). ``rounds`` runs one round on the ``harness`` (its stack: ``stack``), ``edits`` and
``faults`` define what may happen, ``checks`` and ``history`` what must hold, ``resource_usage`` measures the
daemon, ``table`` prints the results; ``launch`` starts the daemon with a clock that can be set.
"""
