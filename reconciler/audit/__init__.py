"""The stream of audit events, and the log that stores them: an append-only hash chain in SQLite.

- ``event_stream`` passes each event to its subscribers; other packages publish and subscribe here;
- ``events`` makes events of steps, generations, changes and the daemon's start and stop;
- ``log`` is the subscriber that stores events, with ``rate_limit``, ``maintenance`` and ``database``;
- ``chain`` and ``chain_head`` compute the hashes, ``query`` reads and verifies entries.

May import ``controller``, ``planning``, ``model``, ``host``.
"""
