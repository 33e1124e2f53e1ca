"""What must be remembered between passes and over restarts. One immutable value, small.

Everything else is looked at afresh in every pass. Losing the ledger costs time and evidence, never
correctness: a container of which it knows nothing is judged by the label that Compose wrote.

Functions here take a ledger and return another; who calls them and when is ``loop``'s business.
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
    """What stood at a mount's source when the container was made; see ``observed.Source``."""

    kind: str
    digest: str = ""
    inode: str = ""


class BuiltFrom(NamedTuple):
    """The inputs a container was made from, or was found to match.

    ``definition`` and ``fields`` are digests (``stack.Service``), ``image`` the id that the image
    reference named at that time. ``lacks`` are the networks that it came without, though the
    definition names them, as the one before it: making it once more would not change that. ``at`` is
    the wall time at which we asked for it, 0 where it was found. ``mounts`` is by ``stack.Mount.key``.
    ``churn`` counts, by the same key, how often in a row a content that the container may write itself had
    changed again right after the start.
    ``inputs`` and ``compose`` are those of the last stack (``stack.Stack``) that the container was as
    defined in.
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
"""Of a container found with inputs that nobody can tell any more."""


class HeldChange(NamedTuple):
    """A change that is to be accepted: ``mark`` says what it is, ``since`` (wall) when it was seen first."""

    mark: str
    since: float


class Named(NamedTuple):
    """The project name that a stack runs under, and the Compose files that it was made of."""

    name: str
    files: tuple[str, ...] = ()


class Renaming(NamedTuple):
    """Another project name than before, and since when (wall) it is known.

    ``held``: nothing of it runs, and nothing is made or started. Else its own containers run already, and
    people are only warned of those of the former name.
    """

    name: str
    since: float
    held: bool = True


class Clock(NamedTuple):
    """Two clocks: ``wall`` for what people write, ``mono`` for waiting. Seconds."""

    wall: float
    mono: float


class ContainerExit(NamedTuple):
    """Evidence of one container that ended by itself; ``log`` its last lines."""

    container: str
    finished_at: float
    code: int
    oom_killed: bool
    log: tuple[str, ...] = ()


class ReadyWindow(NamedTuple):
    """Between which seconds after its start a container became ready: not yet at ``low``, at ``high``."""

    low: float
    high: float


class ReadySince(NamedTuple):
    """Since when (monotonic) a container has been ready, or unhealthy, without a break."""

    container: str
    started_at: float
    since: float


class Restarts(NamedTuple):
    """How often the engine restarted a container by its policy, and when (monotonic) we saw the last ones."""

    container: str
    total: int
    times: tuple[float, ...] = ()


class ParentRuns(NamedTuple):
    """On which runs of its parents a run of a service began: ``run`` is its own, ``parents`` theirs by name.

    Runs are named as ``Container.run`` does: that of a parent is empty where none ran, so that the next one
    is followed, and its own where it has not been seen to run yet.
    """

    run: str
    parents: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """See the module. All mappings are by service, but for ``made``, ``stopped``, ``at_work``, ``cut`` and
    ``hooks``: those are by container id. Of a service with several replicas there is one entry per replica,
    by the name of its unit (``web#2``, see ``replicas``), but for what is true of all of them:
    ``settled``, ``durations``, ``brackets`` and ``surplus``.

    ``making`` is what the containers now being made are made from, until a look finds them (the label
    that Compose wrote for these inputs is right by definition, PITFALLS row 1). ``live`` is the
    container last seen or made to run while that was wanted: when it is found ended, it ended by
    itself. ``settled`` is what was wanted of a service when it last was as wanted: what differs since then
    without a change of it has drifted. ``restarted`` is the ``restarted_at`` acted on, ``followed``
    the start of a parent that a service was restarted for, ``tied`` those that it runs on. ``durations``
    are the last start times in seconds, from start to ready; ``brackets`` how exactly the last one is
    known. ``stopped`` is the start (``started_at``) of each container that we told to stop: that end is
    neither a failure nor a one-shot's success. ``changes`` are those of groups with ``on_change: report``.
    ``unhealthy`` is since when the engine calls a container that, ``healed`` when (monotonic) something was
    done about it; ``restarts`` what the engine did by itself. ``at_work`` are runs (container id to start)
    of one-shots that were not seen to end yet, ``cut`` those that the end of the ``boot`` they began in cut
    short, whatever exit code the engine makes up for them (PITFALLS row 20). ``hooks`` are containers that
    this daemon started and whose post_start hooks have not all succeeded; True: one of them failed.
    ``surplus`` holds the ids of the containers beyond the number in the file, and since when they are there
    to be accepted. ``named`` is the project name that was last
    acted under, ``renaming`` another one that would leave something behind and is not accepted.
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
    """One more failed attempt at a service; the next is put off by ``backoff.delay``.

    The first ``free`` attempts cost no delay. ``container`` is the id of the one that it was about.
    """
    before = ledger.failures.get(service)
    count = before.attempts + 1 if before and before.inputs == inputs else 1
    due = now.mono + delay(count - free, chance)
    entry = Failure(count, due, inputs, reason, error, now.wall, container)
    return replace(ledger, failures={**ledger.failures, service: entry})


def record_exit(
    ledger: Ledger, service: str, exit_: ContainerExit, *, inputs: str, now: Clock, chance: float
) -> Ledger:
    """A container ended without having been told to. The first repair is immediate, later ones wait.

    Seen before (same container, same end): nothing changes.
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
    """Remember how long a start took: not ready after ``not_at`` seconds (0: never asked), but at ``at``.

    A first question that is answered with yes says only that it came too late. The lower bound then
    sinks a little with each start, until it is worth asking earlier again.
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
    """Seconds from start to ready that a service is expected to take; None: never seen."""
    seen = ledger.durations.get(service)
    return median(seen) if seen else None


def for_boot(ledger: Ledger, boot: str) -> Ledger:
    """The ledger in this boot: what was at work in another one was cut short by its end."""
    if not boot or ledger.boot == boot:
        return ledger
    cut = ledger.at_work if ledger.boot else {}
    return replace(ledger, boot=boot, cut={**ledger.cut, **cut}, at_work={})


def omit(mapping: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """A copy of ``mapping`` that lacks ``keys``."""
    gone = set(keys)
    return {key: value for key, value in mapping.items() if key not in gone}


def to_json(ledger: Ledger) -> dict[str, Any]:
    """A plain value for the state directory. Monotonic times are left out: they end with the boot."""
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
    """The ledger that ``to_json`` wrote. Failures come back due at once: a restart is a fresh look.

    Raises:
        ValueError, TypeError, KeyError: the value is not one of ours; begin with an empty ledger.
    """
    if value.get("schema") != SCHEMA:
        raise ValueError(f"ledger schema {value.get('schema')!r} is not {SCHEMA}")
    return Ledger(
        made={key: _made(made) for key, made in value["made"].items()},
        making={key: _made(made) for key, made in value["making"].items()},
        failures={
            # Written by an earlier version, it ends sooner.
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
    # Written by an earlier version, it ends sooner.
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
