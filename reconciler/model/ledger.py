"""The ledger: what the controller remembers between passes and over restarts. One small immutable value.

Everything else is observed again in every pass. Losing the ledger costs time and evidence, never
correctness: a container without an entry is compared by the label that Compose wrote.

``ledger_updates`` has the functions that change it; ``controller.ledger_codec`` its form on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.model.backoff import Failure
from reconciler.model.fingerprint import DesiredFingerprint


class Mounted(NamedTuple):
    """The state of a mount's source when the container was created; see ``observed.HostPath``."""

    kind: str
    digest: str = ""
    inode: str = ""


class BuiltFrom(NamedTuple):
    """The inputs that a container was created from, or was observed to match.

    ``definition`` and ``fields`` are digests (``stack.Service``), ``image`` the id that the image
    reference resolved to at that time. ``lacks`` are networks of the definition that neither this container
    nor its predecessor is attached to: recreating the container would not help. ``at`` is the wall time of
    the create request, 0 if this daemon did not create it. ``mounts`` is keyed by ``stack.Mount.key``.
    ``churn``, with the same keys, is for mounts that the container may write: it counts the starts in a row
    right after which the content changed. ``inputs`` and ``compose`` are those of the last stack
    (``stack.Stack``) whose definition the container matched.
    """

    definition: str
    fields: Mapping[str, str]
    image: str
    lacks: tuple[str, ...] = ()
    at: float = 0.0
    mounts: Mapping[str, Mounted] = {}
    churn: Mapping[str, int] = {}
    inputs: str = ""
    compose: str = ""


UNKNOWN = BuiltFrom("", {}, "")
"""The inputs of an existing container are not known."""


class HeldChange(NamedTuple):
    """A change that waits for approval: ``mark`` identifies it, ``since`` (wall) is its first sighting."""

    mark: str
    since: float


class Named(NamedTuple):
    """The project name that a stack runs under, and its Compose files."""

    name: str
    files: tuple[str, ...] = ()


class Renaming(NamedTuple):
    """A new project name, and since when (wall) it is known.

    ``held``: no container of the new project runs, and the plan creates and starts none. Otherwise
    containers of the new project run already, and a warning names those of the former project.
    """

    name: str
    since: float
    held: bool = True


class Clock(NamedTuple):
    """Two clocks in seconds: ``wall`` for times in files and records, ``mono`` for waiting."""

    wall: float
    mono: float


class ContainerExit(NamedTuple):
    """The exit of a container that this daemon did not stop; ``log`` is its last lines."""

    container: str
    finished_at: float
    code: int
    oom_killed: bool
    log: tuple[str, ...] = ()


class ReadyWindow(NamedTuple):
    """When a container became ready: after ``low`` and at most ``high`` seconds from its start."""

    low: float
    high: float


class ReadySince(NamedTuple):
    """Since when (monotonic) a container has been continuously ready, unhealthy or paused."""

    container: str
    started_at: float
    since: float


class Restarts(NamedTuple):
    """The engine's restarts of a container by policy: their number, and the last times (monotonic)."""

    container: str
    total: int
    times: tuple[float, ...] = ()


class ParentRuns(NamedTuple):
    """The run of a service, and the runs of its parents that it was started with (see ``Container.run``).

    ``run`` is empty until the service is observed running. ``parents`` maps the name of each parent to its
    run, which is empty if the parent did not run. The parent's next run restarts this service.
    """

    run: str
    parents: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The remembered state.

    Mappings are keyed by service; ``made``, ``stopped``, ``halted``, ``at_work``, ``cut`` and ``hooks`` by
    container id. A service with several replicas has one entry per replica, keyed by its unit (``web#2``, see
    ``replicas``), except in ``settled``, ``durations``, ``brackets`` and ``surplus``.

    - ``made``: the inputs of existing containers;
    - ``making``: the inputs of containers being created, until they are observed (the label that Compose
      writes for these inputs is right by definition, PITFALLS row 1);
    - ``live``: the container last seen or started while the service was wanted; its end counts as an exit;
    - ``failures``: the failures in a row, for the back-off;
    - ``settled``: the desired state that the service last matched; while it is unchanged, a difference is
      drift;
    - ``restarted``: the last ``restarted_at`` acted on;
    - ``followed``: the parent's run that a service was restarted for; ``tied``: the parents' runs that its
      own run was started with;
    - ``ready``: since when a container is ready; ``durations``: the last start times in seconds, from start
      to ready; ``brackets``: the bounds of the last one;
    - ``stopped``: the start (``started_at``) of each container that this daemon stopped; this end is neither
      a failure nor a one-shot's success;
    - ``halted``: the start of each one-shot's container that another client stopped; this end is no success;
    - ``completed``: the inputs of a one-shot's last success, which outlive its
      container;
    - ``exits``: the last exit that this daemon did not cause;
    - ``changes``: held changes of groups with ``on_change: report``; ``surplus``: the ids of containers
      beyond the number in the file, and since when they wait for approval;
    - ``paused``: since when a container is paused;
    - ``unhealthy``: since when the engine reports a container unhealthy; ``healed``: when (monotonic) it was
      repaired; ``restarts``: restarts by the engine's policy;
    - ``at_work``: runs (container id to start) of one-shots whose end is not seen yet; ``cut``: those that
      the end of their ``boot`` interrupted, whatever exit code the engine reports (PITFALLS row 20);
    - ``hooks``: containers that this daemon started and whose post_start hooks have not all succeeded; True:
      one of them failed;
    - ``named``: the project name last used; ``renaming``: a new one that would leave resources behind and
      is not accepted.
    """

    made: Mapping[str, BuiltFrom] = field(default_factory=dict)
    making: Mapping[str, BuiltFrom] = field(default_factory=dict)
    live: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    settled: Mapping[str, DesiredFingerprint] = field(default_factory=dict)
    restarted: Mapping[str, float] = field(default_factory=dict)
    followed: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, ParentRuns] = field(default_factory=dict)
    stopped: Mapping[str, float] = field(default_factory=dict)
    brackets: Mapping[str, ReadyWindow] = field(default_factory=dict)
    ready: Mapping[str, ReadySince] = field(default_factory=dict)
    exits: Mapping[str, ContainerExit] = field(default_factory=dict)
    durations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    changes: Mapping[str, HeldChange] = field(default_factory=dict)
    unhealthy: Mapping[str, ReadySince] = field(default_factory=dict)
    paused: Mapping[str, ReadySince] = field(default_factory=dict)
    healed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    restarts: Mapping[str, Restarts] = field(default_factory=dict)
    at_work: Mapping[str, float] = field(default_factory=dict)
    cut: Mapping[str, float] = field(default_factory=dict)
    hooks: Mapping[str, bool] = field(default_factory=dict)
    named: Named | None = None
    renaming: Renaming | None = None
    boot: str = ""
    surplus: Mapping[str, HeldChange] = field(default_factory=dict)
    halted: Mapping[str, float] = field(default_factory=dict)
    completed: Mapping[str, BuiltFrom] = field(default_factory=dict)
