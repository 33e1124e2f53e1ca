"""The HTTP API: reads are answered from snapshots, writes edit desired state through a ``Writer``.

- ``app`` builds the application; ``context`` holds its settings and what the endpoints share;
- ``endpoints`` has one module per group of endpoints;
- ``wire`` converts snapshots to JSON (``views``), describes that JSON and request bodies for OpenAPI, and
  formats errors as problem details;
- ``middleware`` checks every request before it reaches an endpoint: Host, Origin, size, API key;
- ``metrics`` serves ``/metrics``.

May import ``generations``, ``audit``, ``auth``, ``controller``, ``planning``, ``model``. Calls no engine and
makes no plan.
"""
