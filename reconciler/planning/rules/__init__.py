"""Rules: the next step of one service, or why it has none. Pure.

``service`` has the rules of a service whose group is on, ``recreation`` those that create or replace its
container, ``off`` those of a service that is off, unreadable or no longer in the files. Each rule reads a
``PlanningContext`` and the plans of earlier services, changes neither, and returns a ``Decision``.

May import ``model`` and the other modules of ``planning``, except ``planner``, which calls the rules.
"""
