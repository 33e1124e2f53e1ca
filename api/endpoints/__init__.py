"""One module for each group of endpoints. May import ``api.wire``, ``api.middleware`` and ``api.context``."""
