"""``service-manager doctor``: checks of the machine, the engine and the files before the daemon runs."""
