"""The commands of ``service-manager``, one module for those that belong together.

``definitions`` lists them. The module that does a command's work is imported when that command runs, so
that
``--help`` is quick.
"""
