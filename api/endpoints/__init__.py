"""One module for each group of endpoints. Imports ``api.wire`` and ``api.context``."""
