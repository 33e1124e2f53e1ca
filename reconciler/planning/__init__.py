"""Decisions: what to do next for each service, and why. Pure functions of values.

``planner`` builds the plan, ``service_rules`` holds the rules for one service, ``ordering`` its
dependencies, ``drift`` the comparison. May import ``model`` and ``errors``; uses no file, clock, random
number or log.
"""
