"""Decisions: what to do next for each service, and why. Pure functions of values.

``planner`` builds the plan in two phases. ``context`` compares each container once (``comparison``) and calls
the ``gates``; then the ``rules`` decide in start order, with ``ordering`` for what a service waits for.
``drift`` describes the differences, ``status`` derives phases and ``dry_run`` forecasts all steps.
``record_observation`` updates the ledger, ``edits`` resolves requests, ``diff`` compares desired states.

May import ``model`` and ``errors``; uses no file, clock, random number or log.
"""
