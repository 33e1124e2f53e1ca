"""The sandbox for chaos rounds: a daemon that is always restarted, readers, and a record of what was done.

All edits and faults go through here, so that the record has the causes of every action of the daemon and
``checks`` can find actions without a cause.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.chaos.launch import tell_clock
from tests.chaos.load_generator import MemoryGroup
from tests.chaos.stack import DATA, files
from tests.support.harness.daemon import Daemon, RequestRefused
from tests.support.harness.engine_proxy import Call, EngineProxy, Hook
from tests.support.harness.engine_recorder import EngineRecorder
from tests.support.harness.private_engine import PrivateEngine
from tests.support.harness.sandbox import GROUP_NAMES, GROUP_OF, PROJECT, Sandbox, groups_yaml, make_standin

RESYNC = 2.0
_DISK_SIZE = "24m"
_PAUSE = 0.05
_PATIENCE = 10


class ChaosDaemon(Daemon):
    """Started through ``launch``; otherwise the same."""

    def command(self, word: str, *arguments: str) -> list[str]:
        """Like ``Daemon.command``, for the daemon itself."""
        line = super().command(word, *arguments)
        return [*line[:2], "tests.chaos.launch", *line[3:]] if word == "run" else line


class Read(NamedTuple):
    """One read of the status: its seconds, and whether the engine was frozen during it."""

    seconds: float
    frozen: bool


@dataclass
class ActionLog:
    """What happened to the services in a round.

    ``removed``, ``redefined``, ``hit``, ``toggled`` count by service: containers removed, definitions or
    images changed, runs ended from outside, times switched on or restarted. ``disturbed`` counts faults that
    may each cause one retry, ``crashes`` those that may cause a recreation. ``off``: groups that were off at
    some moment; ``audited``: writes that must be in the audit log, by action and target; ``outages``:
    intervals (wall clock) without engine events; ``lost``: acknowledged writes found lost at once,
    ``complaints``: other immediate findings; ``unsure``: groups of a write without a response, which may be
    applied at any later moment.
    """

    removed: Counter[str] = field(default_factory=Counter)
    redefined: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    toggled: Counter[str] = field(default_factory=Counter)
    disturbed: int = 0
    crashes: int = 0
    persons: int = 0
    acked: dict[str, bool] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    acks: int = 0
    audited: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    off: set[str] = field(default_factory=set)
    outages: list[tuple[float, float]] = field(default_factory=list)
    suspended: frozenset[str] = frozenset()
    story: list[str] = field(default_factory=list)


class ChaosHarness:
    """One engine and one sandbox for many rounds. ``keeps_daemon``: all rounds use the same daemon."""

    keeps_daemon = False

    def __init__(
        self, engine: PrivateEngine, proxy: EngineProxy, recorder: EngineRecorder, folder: Path
    ) -> None:
        self.state, self.disk = folder / "state", folder / "disk"
        for disk in (self.state, self.disk):
            # Small file systems of their own, so that they can be filled.
            disk.mkdir(parents=True)
            options = f"size={_DISK_SIZE},mode=0700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
        self.port = quiet_port()
        self.box_name = f"sm-chaos-{os.getpid()}"
        self.box: MemoryGroup | None = None
        with contextlib.suppress(OSError):
            self.box = MemoryGroup(self.box_name)
        self.clock = folder / "clock"
        self.synced = folder / "synced"
        self.sandbox = Sandbox(
            engine,
            proxy,
            recorder,
            folder,
            resync=RESYNC,
            daemon=ChaosDaemon,
            files=files(self.port),
            desired=self.disk / "desired",
        )
        self.daemon = self.sandbox.daemon
        self.daemon.environ |= {"CHAOS_CLOCK": str(self.clock), "CHAOS_SYNCED": str(self.synced)}
        if self.box is not None:
            self.daemon.environ["CHAOS_BOX"] = str(self.box.members)
        self.engine, self.proxy, self.recorder = engine, proxy, recorder
        self.docker = self.sandbox.docker
        # A container with a frozen shim does not answer until it is thawed.
        self.docker.timeout = _PATIENCE
        self.chance = random.Random()
        self.account = ActionLog()
        self.hooks: list[Hook] = []
        self.reads: list[Read] = []
        self.slow: list[str] = []
        self.frozen = self._deaf = False
        self._pauses = 0
        self.ages: Counter[int] = Counter()
        self._audited = 0
        self._began = time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._ending = threading.Event()
        self._reader.start()

    def close(self) -> None:
        """Stop everything."""
        self._ending.set()
        self._reader.join(10)
        self.sandbox.close()
        for disk in (self.state, self.disk):
            subprocess.run(["umount", "-l", str(disk)], check=False)
        if self.box is not None:
            self.box.close()

    def use(self, broken: str = "") -> None:
        """Stop the daemon and use this build from its next start on."""
        if self.daemon.environ.get("CHAOS_BROKEN", "") != broken:
            self.daemon.kill()
            self.daemon.environ["CHAOS_BROKEN"] = broken

    def begin(self, seed: int) -> None:
        """Reset: settled, a new record, random numbers by the seed."""
        self.set_clock(0.0)
        self.calm()
        if self.keeps_daemon:
            self._forgive()
        self.sandbox.settle()
        self._mark_data()
        self._audited = self.last_audited()
        self.ages[self.daemon.pid] += 1
        self.synced.write_text("")
        self.chance = random.Random(seed)
        self.account = ActionLog()
        self.reads, self.slow = [], []
        self._began = time.monotonic()
        self.proxy.hook = self._ask

    def calm(self) -> None:
        """Revert everything that faults may have left, so that the result depends on the daemon alone."""
        self.frozen = False
        self.hooks.clear()
        self.proxy.release()
        self.proxy.show()
        for disk in (self.state, self.disk):
            remount(disk, "rw")
            (disk / "ballast").unlink(missing_ok=True)
        if self.box is not None:
            self.box.free()
        if not self.engine.running:
            self.engine.start()
        if not self.daemon.running:
            self.restart_daemon()

    def tell(self, what: str) -> None:
        """Add a line to the log of the round."""
        self.account.story.append(f"{time.monotonic() - self._began:6.2f}  {what}")

    def _forgive(self) -> None:
        # Repeated failures have a long back-off, until the service is switched off and on again.
        if self.daemon.running and self.sandbox.has_failed():
            self.sandbox.save("groups.yaml", groups_yaml(**dict.fromkeys(GROUP_NAMES, False)))
            self.daemon.converged(self.sandbox.on_disk())

    def _mark_data(self) -> None:
        for path in self.marks():
            if not path.exists():
                path.write_text(str(path))

    def marks(self) -> list[Path]:
        """Write a file into each volume, with its own path as content."""
        volumes = (self.docker.inspect_volume(f"{PROJECT}_{name}") for name in DATA)
        return [Path(volume["Mountpoint"]) / "mark" for volume in volumes]

    # --- the engine ---

    def restart_engine(self, *, kill: bool) -> None:
        """Restart the engine, as an upgrade or a crash does."""
        began = time.time()
        # A starting engine waits for every shim, and thawing waits for the engine.
        signal_all([*shims_of(self.engine).values()], signal.SIGCONT)
        self.frozen = False
        self.sandbox.restart_engine(kill=kill)
        self.recorder.mark()
        self.account.outages.append((began, time.time()))

    # --- the daemon ---

    def restart_daemon(self) -> None:
        """Start the daemon, as systemd does; on return it answers."""
        self.daemon.kill()
        self.daemon.start(RESYNC)
        self.deaf = False

    def kill_daemon(self) -> None:
        """Kill it."""
        self.deaf = True
        if self.daemon.running:
            self.daemon.kill()

    def stop_daemon(self) -> None:
        """Suspend the process."""
        self.deaf = True
        signal_all([self.daemon.pid], signal.SIGSTOP)

    def continue_daemon(self) -> None:
        """Resume the process."""
        signal_all([self.daemon.pid], signal.SIGCONT)
        self.deaf = not self.daemon.running

    def set_clock(self, seconds: float) -> None:
        """Set the offset of the daemon's wall clock."""
        tell_clock(self.clock, seconds)

    # --- writes ---

    def write(self, verb: str, group: str) -> None:
        """Write through REST; an acknowledged write must be on the disk at once and hold at the end."""
        path = self.sandbox.desired / "groups.yaml"
        try:
            inode, before = path.stat().st_ino, path.read_text().splitlines()
            # Don't wait for a suspended daemon: this thread also resumes it.
            self.daemon.post(f"/services/{verb}/{group}", timeout=1.0 if self.deaf else 15.0)
        except RequestRefused as error:
            self.tell(f"{verb} {group} was refused: {error.value.get('detail', error.status)}")
            return
        except (OSError, http.client.HTTPException) as error:
            # The write may have been received: earlier acknowledged states no longer hold.
            self.account.acked.pop(group, None)
            self.account.unsure.add(group)
            self.tell(f"{verb} {group} went unanswered: {type(error).__name__}")
            return
        self.tell(f"{verb} {group} was acknowledged")
        self.account.acks += 1
        if verb in {"start", "stop"}:
            self.account.acked[group] = verb == "start"
        if path.stat().st_ino == inode:
            # It requested the current state, and nothing was written.
            return
        self.account.audited[verb, group] += 1
        for what in (path, path.parent):
            found = what.stat()
            if f"{found.st_dev}:{found.st_ino}" not in self.synced.read_text().split():
                self.account.lost.append(f"{verb} {group}: {what.name} was not made to last")
        after = path.read_text().splitlines()
        others = [line for line in before if not line.lstrip().startswith(f"{group}:")]
        if others != [line for line in after if not line.lstrip().startswith(f"{group}:")]:
            self.account.complaints.append(f"{verb} {group} changed more than that: {before} became {after}")

    def last_audited(self) -> int:
        """The number of the newest entry of the audit log."""
        entries = self.daemon.get("/services/audit?limit=1")["entries"]
        return int(entries[-1]["id"]) if entries else 0

    def audited(self) -> Counter[tuple[str, str]]:
        """Changes by REST in this round from the audit log: by action and target."""
        found: Counter[tuple[str, str]] = Counter()
        older = ""
        while True:
            # In small pages, because larger reads make the daemon use more memory.
            page = self.daemon.get(f"/services/audit?limit=50{older}")["entries"]
            new = [entry for entry in page if entry["id"] > self._audited]
            found.update((entry["action"], entry["target"]) for entry in new)
            if not new or len(new) < len(page):
                return found
            older = f"&before={new[0]['id']}"

    def save_groups(self, text: str, states: Mapping[str, bool]) -> None:
        """Save a file as a person with an editor."""
        self.sandbox.save("groups.yaml", text)
        # A write that a suspended daemon received is applied after this one.
        self.account.acked = {name: on for name, on in states.items() if name not in self.account.unsure}

    def toggle(self, groups: Iterator[str] | list[str], times: int = 1) -> None:
        """Record that these groups are switched on or restarted."""
        wanted = set(groups)
        self.account.toggled.update({s: times for s, g in GROUP_OF.items() if g in wanted})

    # --- hooks ---

    def _ask(self, call: Call) -> str | None:
        for hook in tuple(self.hooks):
            verdict = hook(call)
            if verdict:
                return verdict
        return None

    # --- readers ---

    def _read(self) -> None:
        while not self._ending.wait(_PAUSE):
            pauses = self._pauses
            if self.deaf or not self.daemon.running:
                continue
            frozen, pid = self.frozen, self.daemon.pid
            began = time.monotonic()
            try:
                self.daemon.get("/services/status", timeout=10.0)
            except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
                # A daemon killed or restarted during the read owes no response.
                if pauses == self._pauses and self.daemon.running and self.daemon.pid == pid:
                    took = time.monotonic() - began
                    if took > 2.0:
                        self.slow.append(f"a read failed after {took:.1f} s: {error!r}")
                continue
            # Nor does one that was suspended during it.
            if pauses == self._pauses and self.daemon.running and self.daemon.pid == pid:
                self.reads.append(Read(time.monotonic() - began, frozen))

    @property
    def deaf(self) -> bool:
        """Whether an injected fault keeps the daemon from answering."""
        return self._deaf

    @deaf.setter
    def deaf(self, deaf: bool) -> None:
        self._deaf = deaf
        self._pauses += deaf

    # --- processes ---

    def daemon_vanished(self, pid: int) -> bool:
        """Whether this daemon ended without a cause."""
        return not self.deaf and self.daemon.pid == pid and not self.daemon.running

    def managed(self) -> list[dict[str, object]]:
        """Running containers of the services that faults may target, by an independent observation."""
        if self.frozen:
            return []
        found = []
        for seen in self.recorder.containers("small"):
            service = seen["Config"]["Labels"]["com.docker.compose.service"]
            if service in GROUP_OF and GROUP_OF[service] not in self.account.suspended:
                found.append(
                    {"id": seen["Id"], "service": service, "status": seen["State"]["Status"], **seen}
                )
        return found


@contextlib.contextmanager
def a_world(folder: Path) -> Iterator[ChaosHarness]:
    """Everything that a harness needs, while it is used."""
    with PrivateEngine() as engine:
        make_standin(engine)
        with EngineProxy(engine.socket, engine.folder / "p") as proxy, EngineRecorder(engine) as recorder:
            world = ChaosHarness(engine, proxy, recorder, folder)
            try:
                yield world
            finally:
                world.close()


def shims_of(engine: PrivateEngine) -> dict[str, int]:
    """The process id of each running container's shim, by container id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and str(engine.folder).encode() in b" ".join(words):
                found[words[words.index(b"-id") + 1].decode()] = int(entry.name)
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to those that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def remount(disk: Path, how: str) -> bool:
    """Make a file system ``ro`` or ``rw``; False if a file is open for writing."""
    line = ["mount", "-o", f"remount,{how}", str(disk)]
    for _ in range(20):
        if subprocess.run(line, check=False, capture_output=True).returncode == 0:
            return True
        time.sleep(0.02)
    return False


def quiet_port() -> int:
    """A free port outside the range that the system assigns."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
