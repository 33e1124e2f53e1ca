"""The ledger: what the controller remembers between passes and over restarts. One small immutable value.

Everything else is observed again in every pass. Losing the ledger costs time and evidence, never
correctness: a container without an entry is compared by the label that Compose wrote.

The functions take a ledger and return a new one; ``loop`` calls them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

from reconciler.model.backoff import HEALTHY_FOR, Failure, delay

SCHEMA = 1
LEARNED = 5
FORGET = 0.85


class Mounted(NamedTuple):
    """The state of a mount's source when the container was created; see ``observed.HostPath``."""

    kind: str
    digest: str = ""
    inode: str = ""


class BuiltFrom(NamedTuple):
    """The inputs that a container was created from, or was observed to match.

    ``definition`` and ``fields`` are digests (``stack.Service``), ``image`` the id that the image
    reference resolved to at that time. ``lacks`` are networks of the definition that this container and
    its predecessor are not attached to: recreating it would not help. ``at`` is the wall time of the
    create request, 0 if this daemon did not create it. ``mounts`` is keyed by ``stack.Mount.key``.
    ``churn`` counts, by the same key, how often in a row a content that the container may write itself
    changed again right after the start. ``inputs`` and ``compose`` are those of the last stack
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

    ``held``: none of its containers runs, and none is created or started. Otherwise its containers run
    already, and only a warning names those of the former project.
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
    """When a container became ready, in seconds after its start: after ``low``, at ``high`` at the latest."""

    low: float
    high: float


class ReadySince(NamedTuple):
    """Since when (monotonic) a container has been continuously ready, or unhealthy."""

    container: str
    started_at: float
    since: float


class Restarts(NamedTuple):
    """The engine's restarts of a container by policy: their number, and the last times (monotonic)."""

    container: str
    total: int
    times: tuple[float, ...] = ()


class ParentRuns(NamedTuple):
    """The runs of its parents that a service's run depends on: ``run`` is its own, ``parents`` by name.

    Runs are those of ``Container.run``. A parent's is empty if it did not run: its next run restarts this
    service. ``run`` is empty until the service is observed running.
    """

    run: str
    parents: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The remembered state. Mappings are keyed by service; ``made``, ``stopped``, ``at_work``, ``cut`` and
    ``hooks`` by container id. A service with several replicas has one entry per replica, keyed by its unit
    (``web#2``, see ``replicas``), except in ``settled``, ``durations``, ``brackets`` and ``surplus``.

    ``making``: the inputs of containers being created, until they are observed (the label that Compose
    writes for these inputs is right by definition, PITFALLS row 1). ``live``: the container last seen or
    started while the service was wanted; if it ends, that counts as an exit. ``settled``: the desired state
    at which the service last matched; a difference since then without a change of it is drift.
    ``restarted``: the last ``restarted_at`` acted on. ``followed``: the parent's run that a service was
    restarted for. ``tied``: the parents' runs that it runs on. ``durations``: the last start times in
    seconds, from start to ready; ``brackets``: the bounds of the last one. ``stopped``: the start
    (``started_at``) of each container that this daemon stopped; that end is neither a failure nor a
    one-shot's success. ``changes``: held changes of groups with ``on_change: report``. ``unhealthy``: since
    when the engine reports a container unhealthy; ``healed``: when (monotonic) it was repaired;
    ``restarts``: restarts by the engine's policy. ``at_work``: runs (container id to start) of one-shots
    whose end is not seen yet; ``cut``: those that the end of their ``boot`` interrupted, whatever exit code
    the engine reports for them (PITFALLS row 20). ``hooks``: containers that this daemon started and whose
    post_start hooks have not all succeeded; True: one of them failed. ``surplus``: the ids of containers
    beyond the number in the file, and since when they wait for approval. ``named``: the project name last
    used; ``renaming``: a new one that would leave resources behind and is not accepted.
    """

    made: Mapping[str, BuiltFrom] = field(default_factory=dict)
    making: Mapping[str, BuiltFrom] = field(default_factory=dict)
    live: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    settled: Mapping[str, str] = field(default_factory=dict)
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
    healed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    restarts: Mapping[str, Restarts] = field(default_factory=dict)
    at_work: Mapping[str, float] = field(default_factory=dict)
    cut: Mapping[str, float] = field(default_factory=dict)
    hooks: Mapping[str, bool] = field(default_factory=dict)
    named: Named | None = None
    renaming: Renaming | None = None
    boot: str = ""
    surplus: Mapping[str, HeldChange] = field(default_factory=dict)


def record_failure(
    ledger: Ledger,
    service: str,
    *,
    inputs: str,
    reason: str,
    error: str,
    now: Clock,
    chance: float,
    free: int = 0,
    container: str = "",
) -> Ledger:
    """Record a failed attempt; ``backoff.delay`` delays the next one.

    The first ``free`` attempts cost no delay. ``container`` is the id of the step's container.
    """
    before = ledger.failures.get(service)
    count = before.attempts + 1 if before and before.inputs == inputs else 1
    due = now.mono + delay(count - free, chance)
    entry = Failure(count, due, inputs, reason, error, now.wall, container)
    return replace(ledger, failures={**ledger.failures, service: entry})


def record_exit(
    ledger: Ledger, service: str, exit_: ContainerExit, *, inputs: str, now: Clock, chance: float
) -> Ledger:
    """Record an exit that this daemon did not cause. The first repair is immediate, later ones wait.

    Returns the same ledger if this exit (same container, same end) is recorded already.
    """
    known = ledger.exits.get(service)
    if known is not None and (known.container, known.finished_at) == (exit_.container, exit_.finished_at):
        return ledger
    before = ledger.failures.get(service)
    count = before.attempts + 1 if before and before.inputs == inputs else 1
    why = f"exited with code {exit_.code}" + (", out of memory" if exit_.oom_killed else "")
    entry = Failure(
        count,
        now.mono + delay(count - 1, chance),
        inputs,
        "out_of_memory" if exit_.oom_killed else "exited",
        why,
        now.wall,
    )
    return replace(
        ledger,
        failures={**ledger.failures, service: entry},
        exits={**ledger.exits, service: exit_},
    )


def forget_recovered(ledger: Ledger, now: Clock) -> Ledger:
    """Forget the failures of services that have been ready for ten minutes."""
    well = [
        service
        for service in ledger.failures
        if service in ledger.ready and now.mono - ledger.ready[service].since >= HEALTHY_FOR
    ]
    return replace(ledger, failures=omit(ledger.failures, well)) if well else ledger


def record_start_time(ledger: Ledger, service: str, *, not_at: float, at: float) -> Ledger:
    """Record a start: not ready after ``not_at`` seconds (0: no earlier probe), ready at ``at``.

    A first probe that succeeds gives no lower bound. The known lower bound is then reduced a little with
    each start, so that later starts are probed earlier.
    """
    known = ledger.brackets.get(service)
    low = not_at or (min(known.low, at) * FORGET if known else 0.0)
    kept = (*ledger.durations.get(service, ()), round(at, 3))[-LEARNED:]
    return replace(
        ledger,
        durations={**ledger.durations, service: kept},
        brackets={**ledger.brackets, service: ReadyWindow(round(low, 3), round(at, 3))},
    )


def expected_start_time(ledger: Ledger, service: str) -> float | None:
    """Return the expected seconds from start to ready; None without a recorded start."""
    seen = ledger.durations.get(service)
    return median(seen) if seen else None


def for_boot(ledger: Ledger, boot: str) -> Ledger:
    """Return the ledger for this boot; runs of an earlier boot count as interrupted."""
    if not boot or ledger.boot == boot:
        return ledger
    cut = ledger.at_work if ledger.boot else {}
    return replace(ledger, boot=boot, cut={**ledger.cut, **cut}, at_work={})


def omit(mapping: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a copy of ``mapping`` without ``keys``."""
    omitted = set(keys)
    return {key: value for key, value in mapping.items() if key not in omitted}


def to_json(ledger: Ledger) -> dict[str, Any]:
    """Encode for the state directory, without monotonic times, which are meaningless after a reboot."""
    return {
        "schema": SCHEMA,
        "made": {key: list(made) for key, made in ledger.made.items()},
        "making": {key: list(made) for key, made in ledger.making.items()},
        "failures": {
            key: [f.attempts, f.inputs, f.reason, f.error, f.at, f.container]
            for key, f in ledger.failures.items()
        },
        "settled": dict(ledger.settled),
        "restarted": dict(ledger.restarted),
        "followed": dict(ledger.followed),
        "tied": {key: [tie.run, dict(tie.parents)] for key, tie in ledger.tied.items()},
        "stopped": dict(ledger.stopped),
        "exits": {key: list(exit_) for key, exit_ in ledger.exits.items()},
        "durations": {key: list(seen) for key, seen in ledger.durations.items()},
        "brackets": {key: list(bracket) for key, bracket in ledger.brackets.items()},
        "changes": {key: list(change) for key, change in ledger.changes.items()},
        "at_work": dict(ledger.at_work),
        "cut": dict(ledger.cut),
        "hooks": dict(ledger.hooks),
        "named": [ledger.named.name, list(ledger.named.files)] if ledger.named else None,
        "renaming": list(ledger.renaming) if ledger.renaming else None,
        "boot": ledger.boot,
        "surplus": {key: list(change) for key, change in ledger.surplus.items()},
    }


def from_json(value: Mapping[str, Any], now: Clock) -> Ledger:
    """Decode the result of ``to_json``. Failures are due at once, so a restart retries immediately.

    Raises:
        ValueError, TypeError, KeyError: the value is not a ledger; begin with an empty one.
    """
    if value.get("schema") != SCHEMA:
        raise ValueError(f"ledger schema {value.get('schema')!r} is not {SCHEMA}")
    return Ledger(
        made={key: _made(made) for key, made in value["made"].items()},
        making={key: _made(made) for key, made in value["making"].items()},
        failures={
            # Earlier versions wrote shorter lists.
            key: Failure(
                int(count), now.mono, str(inputs), str(reason), str(error), float(at), *map(str, more)
            )
            for key, (count, inputs, reason, error, at, *more) in value["failures"].items()
        },
        settled=_texts(value["settled"]),
        restarted={key: float(at) for key, at in value["restarted"].items()},
        followed=_texts(value["followed"]),
        tied={key: ParentRuns(str(run), _texts(on)) for key, (run, on) in value.get("tied", {}).items()},
        stopped={key: float(at) for key, at in value["stopped"].items()},
        exits={
            key: ContainerExit(str(c), float(f), int(code), bool(oom), tuple(map(str, log)))
            for key, (c, f, code, oom, log) in value["exits"].items()
        },
        durations={key: tuple(map(float, seen)) for key, seen in value["durations"].items()},
        brackets={
            key: ReadyWindow(float(low), float(high)) for key, (low, high) in value["brackets"].items()
        },
        changes={
            key: HeldChange(str(m), float(since)) for key, (m, since) in value.get("changes", {}).items()
        },
        at_work={key: float(at) for key, at in value.get("at_work", {}).items()},
        cut={key: float(at) for key, at in value.get("cut", {}).items()},
        hooks={key: bool(failed) for key, failed in value.get("hooks", {}).items()},
        named=_named(value.get("named")),
        renaming=_renaming(value.get("renaming")),
        boot=str(value.get("boot", "")),
        surplus={
            key: HeldChange(str(m), float(since)) for key, (m, since) in value.get("surplus", {}).items()
        },
    )


def _named(value: Any) -> Named | None:
    if value is None:
        return None
    name, files = value
    return Named(str(name), tuple(map(str, files)))


def _renaming(value: Any) -> Renaming | None:
    if value is None:
        return None
    name, since, held = value
    return Renaming(str(name), float(since), bool(held))


def _texts(value: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(text) for key, text in value.items()}


def _made(value: Iterable[Any]) -> BuiltFrom:
    # Earlier versions wrote shorter lists.
    definition, fields, image, lacks, at, *more = value
    later: list[Any] = [{}, {}, "", ""]
    mounts, churn, inputs, compose = more + later[len(more) :]
    return BuiltFrom(
        str(definition),
        _texts(fields),
        str(image),
        tuple(map(str, lacks)),
        float(at),
        {key: Mounted(*map(str, mounted)) for key, mounted in mounts.items()},
        {key: int(count) for key, count in churn.items()},
        str(inputs),
        str(compose),
    )
