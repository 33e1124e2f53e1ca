"""The files that declare desired state: read, validate, watch, edit, replace atomically.

``file_watch`` reports changes, ``loader`` reads, ``scan`` finds the files, ``schema`` describes their keys,
``assemble`` builds the values, ``store`` and ``transaction`` write.
May import ``model``, ``planning``, ``host`` and ``errors``.
"""
