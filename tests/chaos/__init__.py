"""Rounds of edits and faults by a seed, and the invariants that must hold (PITFALLS section 3).

``python -m tests.chaos`` (``make chaos``) runs rounds and prints a table; ``test_chaos.py`` runs twenty of
them in ``make test``, ``proof.py`` shows that the suite finds each of several broken builds
(``broken_builds.py``). In short: ``rounds`` plays one round on a ``World`` (its stack: ``stack``), ``edits``
and ``faults`` say what may happen, ``checks`` and ``history`` what must hold, ``vitals`` what the daemon
takes, ``table`` what it all came to; ``launch`` is how the daemon is started: as it is, with a clock that can
be set.
"""
