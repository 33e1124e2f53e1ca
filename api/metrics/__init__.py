"""``/metrics``: metric types, counters, gauges and the registry that serves them."""
