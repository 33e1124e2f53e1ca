"""The reconcile loop: observe, plan, act, publish a snapshot.

- ``loop`` runs the passes: ``engine_observer`` observes, ``executor`` sends steps, ``step_outcomes`` records
  them in the ledger, ``progress`` follows the generation;
- ``snapshot`` holds what readers see, ``snapshot_builder`` builds it;
- ``ledger_file``, ``progress_codec`` and ``crash_logs`` store what must survive a restart;
- ``early_probe`` and ``usage_sampler`` measure running containers.

Knows the engine port and no adapter. May import ``engine`` (the port), ``planning``, ``model``, ``host``.
``progress`` and ``step_outcomes`` are pure.
"""
