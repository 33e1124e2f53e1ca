"""``/metrics``: the metric types, the registry and what fills it."""
