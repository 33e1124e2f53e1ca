"""HTTP, and nothing but HTTP: reads answer from snapshots, writes edit desired state through a writer.

- ``app`` puts the application together; ``settings`` is what it needs to be told;
- ``reads``, ``writes``, ``health``, ``pages`` hold the endpoints, ``stream`` the events;
- ``views`` turns a snapshot into the JSON of the contract, ``schemas`` describes that JSON, ``bodies``
  what is sent;
- ``guard`` stands before all of it (Host, Origin, size), ``problems`` says no in one format.

No engine, no plan being made, no state of its own.
"""
