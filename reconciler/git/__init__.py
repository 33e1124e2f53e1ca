"""Desired state in a git work tree: status, commits, push, pull, signatures. Runs the ``git`` program.

May import ``generations``, ``desired_state``, ``model``, ``host``; knows no engine adapter but Compose's
resolver.
"""
