"""``make run``, ``make clean`` and the preparation of tests, on a developer's machine. Not part of the wheel.

``__main__`` is ``make run``: ``setup`` collects facts and prepares engine and images by the decisions of
``choose``. ``clean`` is ``make clean``. ``venv``, ``host``, ``compose_fetch`` and this file run under a
Python without packages: standard library only.
"""
