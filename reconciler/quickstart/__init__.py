"""``make run``, ``make clean`` and the preparation of tests, on a developer's machine. Not part of the wheel.

``venv``, ``host`` and this file run under a Python without packages: standard library only.
"""
