"""The ``service-manager`` command: ``main`` starts it, ``client`` calls the daemon, ``console`` writes
output.

May import every package below it; commands that only call the daemon load ``client`` and ``console`` alone.
"""
