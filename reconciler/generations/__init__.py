"""Accepted desired states: numbering, storage, edits, outcomes, preview and rollback.

May import ``audit``, ``controller``, ``desired_state``, ``planning``, ``model``, ``host``.
"""
