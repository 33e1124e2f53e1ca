"""Private engines, the daemon as a process, and proxies and recorders between them."""
