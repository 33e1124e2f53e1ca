"""The handlers of the commands: functions that take the console and the parameters, and return the exit code.

Related commands share a module, which is imported only when one of them runs, so that ``--help`` is quick.
``definitions`` describes the commands; ``wait`` is no command and shows the progress of a change.
"""
