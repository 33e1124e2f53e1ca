"""The sandbox under fire: a daemon that is always started again, readers, and an account of what was done.

Everything that edits and faults do goes through here, so that the account says what each service may have
been put through, and ``checks`` can tell what the daemon did beyond that.
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
    """Started through ``launch``; everything else as ever."""

    def command(self, word: str, *arguments: str) -> list[str]:
        """As ``Daemon.command``, but for the daemon itself."""
        line = super().command(word, *arguments)
        return [*line[:2], "tests.chaos.launch", *line[3:]] if word == "run" else line


class Read(NamedTuple):
    """One read of the status: seconds it took, and whether the engine was held up meanwhile."""

    seconds: float
    frozen: bool


@dataclass
class ActionLog:
    """What the services were put through in a round.

    ``removed``, ``redefined``, ``hit``, ``toggled`` count by service: containers taken away, definitions
    or images changed, runs cut short from outside, times switched on or told to restart. ``disturbed``
    counts faults that may each cost an act a second try, ``crashes`` those that may cost a remake.
    ``off``: groups that were off at some moment; ``audited``: writes that must be in the audit log, by
    action and target; ``outages``: from when to when, wall clock, nobody heard the engine; ``lost``: what
    was found at once to be lost of acknowledged writes, ``complaints``: all else that was found at once;
    ``unsure``: groups of a write that nobody answered, and that may be carried out at any later moment.
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
    """One engine, one sandbox; many rounds. ``keeps_daemon``: no round begins with another daemon."""

    keeps_daemon = False

    def __init__(
        self, engine: PrivateEngine, proxy: EngineProxy, recorder: EngineRecorder, folder: Path
    ) -> None:
        self.state, self.disk = folder / "state", folder / "disk"
        for disk in (self.state, self.disk):
            # Small, so that they can be filled, and file systems of their own.
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
        # Whose shim is frozen answers nobody, and who thaws it has to get to that.
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
        """End all that runs."""
        self._ending.set()
        self._reader.join(10)
        self.sandbox.close()
        for disk in (self.state, self.disk):
            subprocess.run(["umount", "-l", str(disk)], check=False)
        if self.box is not None:
            self.box.close()

    def use(self, broken: str = "") -> None:
        """Use this build of the daemon from its next start on; it ends now."""
        if self.daemon.environ.get("CHAOS_BROKEN", "") != broken:
            self.daemon.kill()
            self.daemon.environ["CHAOS_BROKEN"] = broken

    def begin(self, seed: int) -> None:
        """Back to the beginning: settled, a new account, chance by the seed."""
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
        """Take back whatever a fault may have left, so that the daemon alone decides how it ends."""
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
        """A line of the round's story."""
        self.account.story.append(f"{time.monotonic() - self._began:6.2f}  {what}")

    def _forgive(self) -> None:
        # What failed in a row is tried ever more seldom, until it is switched off and on again.
        if self.daemon.running and self.sandbox.has_failed():
            self.sandbox.save("groups.yaml", groups_yaml(**dict.fromkeys(GROUP_NAMES, False)))
            self.daemon.converged(self.sandbox.on_disk())

    def _mark_data(self) -> None:
        for path in self.marks():
            if not path.exists():
                path.write_text(str(path))

    def marks(self) -> list[Path]:
        """A file in each volume, with its own path in it."""
        volumes = (self.docker.inspect_volume(f"{PROJECT}_{name}") for name in DATA)
        return [Path(volume["Mountpoint"]) / "mark" for volume in volumes]

    # --- the engine ---

    def restart_engine(self, *, kill: bool) -> None:
        """As an upgrade does it, or as a crash."""
        began = time.time()
        # An engine that starts waits for every shim, and the one who would thaw it waits for the engine.
        signal_all([*shims_of(self.engine).values()], signal.SIGCONT)
        self.frozen = False
        self.sandbox.restart_engine(kill=kill)
        self.recorder.mark()
        self.account.outages.append((began, time.time()))

    # --- the daemon ---

    def restart_daemon(self) -> None:
        """What systemd does; on return it answers."""
        self.daemon.kill()
        self.daemon.start(RESYNC)
        self.deaf = False

    def kill_daemon(self) -> None:
        """Without warning."""
        self.deaf = True
        if self.daemon.running:
            self.daemon.kill()

    def stop_daemon(self) -> None:
        """In its tracks."""
        self.deaf = True
        signal_all([self.daemon.pid], signal.SIGSTOP)

    def continue_daemon(self) -> None:
        """Where it was."""
        signal_all([self.daemon.pid], signal.SIGCONT)
        self.deaf = not self.daemon.running

    def set_clock(self, seconds: float) -> None:
        """How much the daemon's wall clock is off from now on."""
        tell_clock(self.clock, seconds)

    # --- writes ---

    def write(self, verb: str, group: str) -> None:
        """Through REST; what is acknowledged has to be there in the end, and on the disk already now."""
        path = self.sandbox.desired / "groups.yaml"
        try:
            inode, before = path.stat().st_ino, path.read_text().splitlines()
            # Who is stopped in his tracks is not waited for: who lets him go on is the same as who writes.
            self.daemon.post(f"/services/{verb}/{group}", timeout=1.0 if self.deaf else 15.0)
        except RequestRefused as error:
            self.tell(f"{verb} {group} was refused: {error.value.get('detail', error.status)}")
            return
        except (OSError, http.client.HTTPException) as error:
            # It may have been heard all the same: what was acknowledged before holds no more.
            self.account.acked.pop(group, None)
            self.account.unsure.add(group)
            self.tell(f"{verb} {group} went unanswered: {type(error).__name__}")
            return
        self.tell(f"{verb} {group} was acknowledged")
        self.account.acks += 1
        if verb in {"start", "stop"}:
            self.account.acked[group] = verb == "start"
        if path.stat().st_ino == inode:
            # It said what was said already, and nothing was written.
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
        """Changes asked for by REST in this round, as the audit log has them: by action and target."""
        found: Counter[tuple[str, str]] = Counter()
        older = ""
        while True:
            # In small pages: who reads ever more at once makes the daemon take ever more memory for it.
            page = self.daemon.get(f"/services/audit?limit=50{older}")["entries"]
            new = [entry for entry in page if entry["id"] > self._audited]
            found.update((entry["action"], entry["target"]) for entry in new)
            if not new or len(new) < len(page):
                return found
            older = f"&before={new[0]['id']}"

    def save_groups(self, text: str, states: Mapping[str, bool]) -> None:
        """As a person with an editor."""
        self.sandbox.save("groups.yaml", text)
        # A write that a stopped daemon has in its ears comes after this one.
        self.account.acked = {name: on for name, on in states.items() if name not in self.account.unsure}

    def toggle(self, groups: Iterator[str] | list[str], times: int = 1) -> None:
        """These groups are switched on, or told to restart."""
        wanted = set(groups)
        self.account.toggled.update({s: times for s, g in GROUP_OF.items() if g in wanted})

    # --- hooks ---

    def _ask(self, call: Call) -> str | None:
        for hook in tuple(self.hooks):
            verdict = hook(call)
            if verdict:
                return verdict
        return None

    # --- what readers get ---

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
                # One that was killed or restarted meanwhile owes no answer.
                if pauses == self._pauses and self.daemon.running and self.daemon.pid == pid:
                    took = time.monotonic() - began
                    if took > 2.0:
                        self.slow.append(f"a read failed after {took:.1f} s: {error!r}")
                continue
            # Nor does one that slept through a part of it.
            if pauses == self._pauses and self.daemon.running and self.daemon.pid == pid:
                self.reads.append(Read(time.monotonic() - began, frozen))

    @property
    def deaf(self) -> bool:
        """Whether the daemon can answer nobody, by our own doing."""
        return self._deaf

    @deaf.setter
    def deaf(self, deaf: bool) -> None:
        self._deaf = deaf
        self._pauses += deaf

    # --- who is there ---

    def daemon_vanished(self, pid: int) -> bool:
        """Whether this daemon ended, though nobody here ended it."""
        return not self.deaf and self.daemon.pid == pid and not self.daemon.running

    def managed(self) -> list[dict[str, object]]:
        """What runs of the services that faults may aim at, by an independent look."""
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
    """Everything that a world stands on, for as long as it is used."""
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
    """Send a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def remount(disk: Path, how: str) -> bool:
    """Make a file system ``ro`` or ``rw``; False where somebody writes in it."""
    line = ["mount", "-o", f"remount,{how}", str(disk)]
    for _ in range(20):
        if subprocess.run(line, check=False, capture_output=True).returncode == 0:
            return True
        time.sleep(0.02)
    return False


def quiet_port() -> int:
    """A port that nobody uses, and that the system gives nobody who asks for any."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
