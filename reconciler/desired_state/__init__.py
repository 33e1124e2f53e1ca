"""The files that declare desired state: read, validate, watch, edit, replace atomically.

``scan`` finds the files, ``schema`` describes their keys, ``assemble`` builds the values, ``transaction``
writes.
May import ``model``, ``planning``, ``host`` and ``errors``.
"""
