"""The ``service-manager`` command.

- ``main`` parses the command line and runs a command of ``commands``; ``commands.definitions`` describes
  commands for help and completion, with the option types of ``options``;
- ``client`` and ``event_feed`` call the daemon; ``oneshot`` reads files and engine without it;
- ``console`` prints; ``output`` formats status and progress, and draws with rich;
- ``doctor`` and ``init`` do the work of the commands of these names; ``git_receive`` is the git hook.

May import every lower package. A command that only calls the daemon imports no engine and no server, so that
it starts quickly.
"""
