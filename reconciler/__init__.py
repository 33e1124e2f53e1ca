"""Service Manager: a loop that keeps a stack of containers as its files say.

From the inside out:

- values: ``stack`` (what there is), ``desired`` (what is wanted), ``observed`` (what an engine
  reported), ``ledger`` (what must be remembered), all immutable;
- the decision: ``plan`` compares them and says, per service, what to do now, what to wait for, or
  why not; ``drift`` says what differs, ``backoff`` when to try again. Pure functions;
- the ports: ``engine/`` (containers), ``store`` (files), ``generations`` (accepted desired states);
- the shell: ``loop`` runs passes, ``executor`` carries out steps, ``dispatch`` remembers what was sent,
  ``snapshot`` is what readers see;
- the outside: ``daemon`` puts it together, ``cli`` is the way in, ``api/`` speaks HTTP.

Arrows go one way only; ``lint-imports`` checks it (see ``pyproject.toml``).
"""

__version__ = "0.1.0"
