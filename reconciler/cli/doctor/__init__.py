"""``service-manager doctor``: checks of the machine, the engine and the files before the daemon runs.

A check is a function from ``context.CheckContext`` to a ``Check`` with a remedy. ``checks`` lists and runs
all of them; those of an engine are in ``engine/NAME/doctor_checks.py``.
"""
