"""The commands of ``service-manager``, related commands in one module.

``definitions`` lists them. A command's module is imported only when the command runs, so that ``--help`` is
quick.
"""
