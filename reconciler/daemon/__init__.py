"""The daemon process: builds every component, runs the servers, notifies systemd, stops in order.

``run`` is the entry: it locks the directories, builds the ``components``, starts and stops their tasks
(``task_runner``). ``file_reload`` reads the files, ``sd_notify`` reports to systemd, ``audit_session`` owns
the audit log. ``servers`` and ``accept`` serve HTTP. ``http_limits``, ``connection_gate`` and
``limited_protocol`` limit what clients can hold.

May import every package below it.
"""
