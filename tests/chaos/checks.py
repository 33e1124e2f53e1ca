"""Invariants: always, at quiet, within a budget, and for acknowledged writes.

Every check returns complaints as sentences, independent of the daemon: the recorder reads the engine
directly, the proxy records every request with its sender, files are read from the disk.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path

from docker.errors import NotFound
from ruamel.yaml import YAML

from reconciler.audit.query import verify
from tests.chaos.harness import ChaosHarness
from tests.chaos.stack import DATA
from tests.support.harness.daemon import Json, RequestRefused
from tests.support.harness.engine_proxy import Call
from tests.support.harness.engine_recorder import SERVICE, Event
from tests.support.harness.sandbox import GROUP_NAMES, GROUP_OF, ONE_SHOTS, PROJECT, groups_yaml

QUIET = 60.0
"""Seconds after the last fault within which all must be as desired (PITFALLS section 3)."""
_RESYNCS = 3
_PAUSE = 0.1
_QUIET_ANSWER = 10.0
_PROBE = 6.0
"""Seconds that a probe may take: more than the time limit of every health check."""
_HANGS = 2.0
"""Seconds that no read may ever take; how fast they are is a figure, not a check."""


def wanted_on_disk(world: ChaosHarness) -> set[str]:
    """The groups that are on in the file, without suspended ones."""
    found = YAML(typ="safe", pure=True).load(world.sandbox.desired / "groups.yaml")["groups"]
    states = {name: value["state"] if isinstance(value, dict) else value for name, value in found.items()}
    return {name for name in GROUP_NAMES if states[name] in {"on", True}}


# --- at quiet ---


def settled(world: ChaosHarness, within: float = QUIET) -> tuple[float, list[str]]:
    """Seconds until the daemon reports converged and an independent observation agrees; complaints."""
    began = time.monotonic()
    wanted = wanted_on_disk(world)
    status: Json = {}
    complaints: list[str] = ["the daemon does not take in what is on the disk"]
    generation = taken_in(world)
    while time.monotonic() - began < within:
        try:
            status = world.daemon.get("/services/status", timeout=5.0)
        except (OSError, ValueError, HTTPException):
            time.sleep(_PAUSE)
            continue
        if _is_over(status) and status["generation"] >= generation and not status["errors"]:
            # Suspended groups stay as they are, also if an engine failure stopped them.
            complaints = [
                text
                for text in world.sandbox.complaints(wanted)
                if GROUP_OF[text.partition(" ")[0]] not in world.account.suspended
            ]
            if not complaints:
                return time.monotonic() - began, []
        else:
            complaints = [_short(status)]
        time.sleep(_PAUSE)
    return within, [f"not as desired {within:g} s after the last fault: {'; '.join(complaints)}"]


def taken_in(world: ChaosHarness) -> int:
    """The generation of the current files, after the daemon has read them."""
    deadline = time.monotonic() + QUIET
    while True:
        verb = "start" if "extra" in wanted_on_disk(world) else "stop"
        try:
            # A write without a change first accepts files that were not read yet.
            return int(world.daemon.post(f"/services/{verb}/extra", timeout=10.0)["generation"])
        except (OSError, HTTPException, RequestRefused):
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


def _is_over(status: Json) -> bool:
    return bool(status["converged"]) and status["generation"] == status["observed_generation"]


def _short(status: Json) -> str:
    waiting = [
        f"{s['name']}: {s['phase']} {s['reason']} {s['message']}"
        for group in status["groups"].values()
        for s in group["services"]
        if s["phase"] not in {"", "converged"}
    ]
    engine, errors = status["engine"]["reachable"], status["errors"]
    return f"generation {status['generation']}, engine {engine}, errors {errors}, {', '.join(waiting)}"


def stays_quiet(world: ChaosHarness) -> list[str]:
    """Nothing to do: ``plan`` is empty, and three more resyncs do nothing."""
    found = []
    mark, deadline = world.proxy.mark(), time.monotonic() + 15.0
    pid = world.daemon.pid
    done = world.daemon.cli("plan", local=True)
    if done.returncode != 0:
        found.append(f"plan exits {done.returncode}: {done.stdout}{done.stderr}")
    while True:
        calls = world.proxy.calls[mark:]
        # Only a resync lists all images.
        looks = sum(call.path == "/images/json" and call.pid == pid for call in calls)
        if looks > _RESYNCS:
            break
        if time.monotonic() > deadline:
            found.append(f"only {looks} resyncs in 15 s")
            break
        time.sleep(_PAUSE)
    acts = [call for call in world.proxy.changes_since(mark) if call.pid == pid or call.by_compose]
    acts = [call for call in acts if not call.path.endswith("/exec")]
    if acts:
        found.append(f"acts at rest: {_calls(acts)}")
    return found


def nothing_left(world: ChaosHarness) -> list[str]:
    """No duplicate network, no lost volume, no leftover probe or Compose child."""
    found = []
    networks = world.sandbox.networks()
    if networks != sorted(set(networks)):
        found.append(f"networks twice: {networks}")
    found += _data_lost(world)
    found += _execs_left(world)
    processes = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    left = [
        line for line in processes.splitlines() if f"{world.state}" in line and "compose" in line.split()[2]
    ]
    if left:
        found.append(f"Compose still runs: {left}")
    return found


def _data_lost(world: ChaosHarness) -> list[str]:
    volumes = {volume["Name"] for volume in world.docker.volumes()["Volumes"] or ()}
    lost = {f"{PROJECT}_{name}" for name in DATA} - volumes
    if lost:
        return [f"volumes gone: {sorted(lost)}"]
    return [f"no longer what was written: {p}" for p in world.marks() if _text(p) != str(p)]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _execs_left(world: ChaosHarness) -> list[str]:
    """Probes that run longer than allowed; the engine's own come and go."""
    deadline, left = time.monotonic() + _PROBE, _execs(world)
    while left and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        left &= _execs(world)
    # A probe whose creation was not answered is never started and has no process.
    left = {id_ for id_ in left if _runs(world, id_)}
    return [f"probes still run: {sorted(left)}"] if left else []


def _runs(world: ChaosHarness, exec_id: str) -> bool:
    try:
        return bool(world.docker.exec_inspect(exec_id)["Running"])
    except NotFound:
        return False


def _execs(world: ChaosHarness) -> set[str]:
    return {id_ for seen in world.recorder.containers(PROJECT) for id_ in seen["ExecIDs"] or ()}


def tells_the_truth(world: ChaosHarness) -> list[str]:
    """The status of each service matches an independent observation."""
    status = world.daemon.get("/services/status")
    found = []
    several = [
        seen for seen in world.recorder.containers(PROJECT) if seen["Config"]["Labels"][SERVICE] in GROUP_OF
    ]
    count = Counter(seen["Config"]["Labels"][SERVICE] for seen in several)
    for seen in several:
        service = seen["Config"]["Labels"][SERVICE]
        if count[service] > 1:
            # A stopped service of a group that is off is left alone, also if a recreation left two
            # containers.
            continue
        reported = world.daemon.service(service, status)
        state = seen["State"]
        truth = {
            "container": seen["Name"].removeprefix("/"),
            "status": state["Status"],
            "restart_count": seen["RestartCount"],
        }
        if state["Status"] == "running" and "Health" in state:
            truth["health"] = state["Health"]["Status"]
        found += [
            f"{service}: {k} is {v}, but reported as {reported[k]}"
            for k, v in truth.items()
            if reported[k] != v
        ]
    return found


# --- always ---


def answers(world: ChaosHarness) -> list[str]:
    """It answers; otherwise its threads are dumped to its log."""
    try:
        world.daemon.get("/healthz", timeout=_QUIET_ANSWER)
    except (OSError, ValueError, HTTPException, RequestRefused) as error:
        if world.daemon.running:
            world.daemon.signal(signal.SIGUSR1)
            world.recorder.look_until(world.daemon.log, lambda log: "most recent call first" in log)
        return [f"the daemon does not answer: {error!r}"]
    return []


def untouched(
    world: ChaosHarness, before: Mapping[str, tuple[str, str]], after: Mapping[str, tuple[str, str]]
) -> list[str]:
    """Foreign and suspended containers are the same and were not restarted."""
    found = []
    restarted = bool(world.account.outages)
    for name, (id_, since) in before.items():
        now = after.get(name)
        if now is None or now[0] != id_ or (now[1] != since and not restarted):
            found.append(f"{name} was touched: {(id_[:12], since)} is now {now}")
    return found


def one_at_a_time(events: Iterable[Event]) -> list[str]:
    """Two containers of a service never run at the same time."""
    running: dict[str, set[str]] = {}
    found = []
    for event in events:
        if event.kind != "container" or event.project != PROJECT or event.service not in GROUP_OF:
            continue
        up = running.setdefault(event.service, set())
        if event.action == "start":
            up.add(event.id)
            if len(up) > 1:
                found.append(f"two containers of {event.service} run: {sorted(id_[:12] for id_ in up)}")
        elif event.action in {"die", "destroy"}:
            up.discard(event.id)
    return found


def one_compose_at_a_time(calls: Iterable[Call]) -> list[str]:
    """Compose calls of the daemon never overlap (PITFALLS row 8)."""
    spans: dict[int, list[float]] = {}
    for call in calls:
        if call.by_compose:
            span = spans.setdefault(call.pid, [call.at, call.at])
            span[1] = call.at
    several = sorted((first, last, pid) for pid, (first, last) in spans.items())
    return [
        f"Compose {pid} began while Compose {other} was at work"
        for (_, last, other), (first, _, pid) in itertools.pairwise(several)
        if first < last
    ]


def compose_runs(calls: Iterable[Call]) -> int:
    """The number of Compose calls that created something."""
    return len({call.pid for call in calls if call.by_compose})


def reads_never_hang(world: ChaosHarness) -> list[str]:
    """Every read is answered."""
    worst = max((read.seconds for read in world.reads), default=0.0)
    return [*world.slow, *([f"a read took {worst:.1f} s"] if worst > _HANGS else [])]


# --- the budget ---


def beyond(world: ChaosHarness, events: Iterable[Event], calls: Iterable[Call]) -> tuple[int, list[str]]:
    """Actions beyond the needed, and complaints about those that no fault excuses."""
    account = world.account
    seen = Counter((e.service, e.action) for e in events if e.kind == "container" and e.project == PROJECT)
    extra, found = 0, []
    for service in GROUP_OF:
        made, started = seen[service, "create"], seen[service, "start"]
        needed = account.removed[service] + account.redefined[service]
        excused = account.crashes + account.persons + (account.disturbed if needed else 0)
        if made > needed + excused:
            found.append(f"{service} was made {made} times, {needed} needed, {excused} excused")
        extra += max(0, made - needed)
        needed = account.hit[service] + account.toggled[service] + made
        excused = 2 * account.disturbed + 2 * len(account.outages) + account.persons + 1
        if service in ONE_SHOTS:
            excused += account.hit["db"]
        if started > needed + excused:
            found.append(f"{service} was started {started} times, {needed} needed, {excused} excused")
        extra += max(0, started - needed - len(account.outages))
    runs = compose_runs(calls)
    needed = sum(account.removed.values()) + sum(account.redefined.values())
    excused = 3 * (account.disturbed + account.crashes + account.persons)
    if runs > 3 * needed + excused:
        found.append(f"Compose ran {runs} times, with {needed} containers to be made, {excused} excused")
    return extra, found


# --- durability ---


def lost(world: ChaosHarness) -> list[str]:
    """Acknowledged writes that are missing in the file, on the disk, or in the audit log."""
    found = list(world.account.lost)
    wanted = wanted_on_disk(world)
    for group, on in world.account.acked.items():
        if (group in wanted) != on and group not in world.account.suspended:
            found.append(f"{group} was acknowledged to be {'on' if on else 'off'} and is not in the file")
    missing = world.account.audited - world.audited()
    if missing:
        found.append(f"acknowledged and not in the audit log: {dict(missing)}")
    return found


def lasting(world: ChaosHarness, generation: int) -> list[str]:
    """The audit log is intact, and generations only grow."""
    found = []
    now = int(world.daemon.get("/services/status")["generation"])
    if now < generation:
        found.append(f"generation {generation} became {now}")
    verdict = verify(world.state)
    if not verdict.good:
        found.append(f"audit: {verdict}")
    return found


def suspended_entries(world: ChaosHarness) -> dict[str, tuple[str, str]]:
    """Id and start of the containers of suspended groups."""
    return {
        seen["Name"]: (seen["Id"], seen["State"]["StartedAt"])
        for seen in world.recorder.containers(PROJECT)
        if GROUP_OF.get(seen["Config"]["Labels"][SERVICE]) in world.account.suspended
    }


def suspended_yaml(groups: Iterable[str]) -> str:
    """All on, these suspended."""
    return groups_yaml(**dict.fromkeys(groups, "{state: on, suspend: true}"))


def _calls(calls: Iterable[Call]) -> str:
    return ", ".join(f"{call.method} {call.path}{' by Compose' if call.by_compose else ''}" for call in calls)
