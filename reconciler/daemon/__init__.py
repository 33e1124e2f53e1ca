"""The daemon process: builds every component, runs the servers, notifies systemd, stops in order.

May import every package below it.
"""
