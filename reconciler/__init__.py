"""Service Manager keeps the containers of one machine as its files declare.

From the values outward:

- ``model``: desired state, observed state, the ledger: values only
- ``planning``: decides, per service, what to do next. Pure functions
- ``host``: files, locks, the journal. No word of the product
- ``engine``: the port to containers, and its adapters
- ``desired_state``: reads, validates, watches and edits the declared files
- ``auth``: API keys
- ``controller``: the reconcile loop
- ``audit``: the append-only log of what was done
- ``generations``: accepted desired states, edits and rollback
- ``git``: desired state in a git work tree
- ``daemon``: puts a running process together
- ``cli``: the ``service-manager`` command
- ``quickstart``: ``make run``; not part of the wheel

The HTTP API is the package ``api`` beside this one. ``pyproject.toml`` lists which package may import
which; ``make layers`` checks it. ``ARCHITECTURE.md`` explains why.
"""

__version__ = "0.2.0"
