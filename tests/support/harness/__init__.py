"""Private engines, the daemon as a process, proxies and recorders between them."""
