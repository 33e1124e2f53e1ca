"""The commands of ``service-manager``, one module for those that belong together.

``table`` says what there is, ``parsing`` makes values of arguments and environment, and the module
that does a command's work is imported only when that command runs: ``--help`` needs none of them.
"""
