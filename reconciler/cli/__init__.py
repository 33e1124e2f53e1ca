"""The ``service-manager`` command: ``main`` starts it, ``client`` calls the daemon, ``console`` writes
output.

May import every lower package. Commands that only call the daemon load
``client`` and ``console`` alone.
"""
