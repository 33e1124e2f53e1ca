"""The composition root: chooses the engine, builds all components, and runs until a stop signal."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

from api.app import close_streams, create_app
from api.context import Settings as ApiSettings
from api.metrics.registry import Metrics, metrics_app
from reconciler import package_data
from reconciler.auth import bind_check
from reconciler.auth.credentials import load_api_key
from reconciler.auth.keys import KeyRing, KeyStoreError
from reconciler.controller import ledger_file
from reconciler.controller.crash_logs import CrashLogStore
from reconciler.controller.executor import Concurrency
from reconciler.controller.loop import Hooks, Loop, LoopTimings
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.controller.usage_sampler import Sampler
from reconciler.daemon import git_wiring
from reconciler.daemon.audit_session import AuditSession
from reconciler.daemon.http_limits import Gate, limits_for
from reconciler.daemon.keep_running import keep_up
from reconciler.daemon.sd_notify import Notifier, ReadinessNotifier
from reconciler.daemon.servers import (
    PortTaken,
    Server,
    listen,
    local_host_names,
    raise_descriptor_limit,
    serve,
    server,
)
from reconciler.desired_state.digest_key_file import Resolve, keyed, load_key
from reconciler.desired_state.file_watch import ProblemListener, changes
from reconciler.desired_state.mounted_files import MountedFiles
from reconciler.desired_state.store import Store
from reconciler.engine import Engine
from reconciler.engine.compose.discovery import environment
from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.errors import AlreadyRunning, EngineError
from reconciler.generations.acceptance import Acceptor
from reconciler.generations.outcomes import LastPass, OutcomeRecorder, each, remember
from reconciler.generations.preview import Previewer
from reconciler.generations.rollback import History
from reconciler.generations.store import Generations
from reconciler.host import disk, logging_setup
from reconciler.host.directory_lock import DirectoryLock
from reconciler.model.ledger import Clock
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack
from reconciler.options import Address, RunOptions

log = logging.getLogger(__name__)

GRACE = 3.0
"""Seconds to wait at the end for steps in flight, and then for open responses."""
TURNS = 0.001
"""The interpreter's switch interval in seconds. With Python's default of 5 ms, each of the few thread
switches of a disk write takes that long while the loop is planning."""
_AGAIN = 0.5
"""Seconds after which to retry files that could not be read for a passing reason."""
WORKERS = 6
"""Threads for blocking calls (files, git, the audit log)."""
DEADLINE = 12.0
"""Seconds after a stop signal at which the process exits, even if a call hangs."""


def run(options: RunOptions) -> int:
    """Run the daemon in the foreground; return 0 after SIGTERM or SIGINT, 1 if it can't start."""
    logging_setup.set_up()
    sys.setswitchinterval(TURNS)
    # On SIGABRT (watchdog), dump the stacks of all threads.
    faulthandler.enable()
    notifier = Notifier.from_environment()
    try:
        key = load_api_key()
        options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        safe = options.insecure or bind_check.is_loopback(options.host)
        # Revoking the last key must not open an address that only a key made acceptable.
        keys = KeyRing(options.state_dir, environment=key, always=not safe)
        bind_check.check(options.host, keyless=keys.empty, insecure=options.insecure)
        with DirectoryLock(options.state_dir), _DesiredStateLock(options.desired_state) as held:
            listener = listen(Address(options.host, options.port))
            scraped = options.metrics_listen
            second = listen(scraped, "--metrics-listen", ahead=True) if scraped else None
            asyncio.run(_Daemon(options, held, listener, second, keys, notifier).run())
    except KeyStoreError as error:
        logging_setup.emit(f"{error}\n  → {error.remedy}" if error.remedy else str(error))
        return 1
    except (AlreadyRunning, PortTaken, bind_check.UnsafeBind, OSError) as error:
        logging_setup.emit(str(error))
        return 1
    return 0


class _DesiredStateLock(contextlib.AbstractContextManager["_DesiredStateLock"]):
    """Locks the desired-state directory, also if it appears later or is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: DirectoryLock | None = None
        self.hold()

    def hold(self) -> bool:
        """Lock the current directory; True if it appeared just now.

        Raises:
            AlreadyRunning: another daemon has locked it.
        """
        if self._lock is not None:
            self._lock.refresh()
            return False
        if not self._path.is_dir():
            return False
        self._lock = DirectoryLock(self._path)
        return True

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()


def choose_engine(options: RunOptions) -> tuple[Engine, Resolve]:
    """Return the engine of the options, and the function that resolves Compose files for it."""
    # Compose defines the meaning of a Compose file, also for the simulated engine.
    from reconciler.engine.compose.engine import resolve

    if options.engine == "simulated":
        return SimulatedEngine(wall=time.time), resolve
    from reconciler.engine.docker.engine import DockerEngine

    return DockerEngine(options.state_dir), resolve


@dataclass(slots=True)
class _Daemon:
    options: RunOptions
    directory: _DesiredStateLock
    listener: socket.socket
    metrics_listener: socket.socket | None
    keys: KeyRing
    notifier: Notifier

    async def run(self) -> None:
        recording = AuditSession(self.options.state_dir, time.time)
        failed = True
        try:
            await self._serve_forever(recording)
            failed = False
        finally:
            await recording.end(failed=failed)

    async def _serve_forever(self, recording: AuditSession) -> None:
        options = self.options
        _warm_up_threads(asyncio.get_running_loop())
        engine, resolve = choose_engine(options)
        ledger = await asyncio.to_thread(ledger_file.read, options.state_dir, _clocks())
        keeper = ledger_file.LedgerWriter(options.state_dir)
        key = await asyncio.to_thread(load_key, options.state_dir)
        generations = await asyncio.to_thread(Generations, options.state_dir, key=key)
        address = str(Address(options.host, options.port))
        await recording.begin(generations, engine=options.engine, address=address)
        snapshots = SnapshotPublisher()
        remember(generations, snapshots)
        passes = LastPass()
        inputs_changed = threading.Event()
        sources = MountedFiles(reading=lambda: intake.reading, files_changed=inputs_changed.set)
        evidence = CrashLogStore(options.state_dir, lambda c, tail: engine.logs(c.id, tail=tail))
        metrics = Metrics(snapshots)
        announcer = ReadinessNotifier(
            self.notifier, snapshots, done=lambda: passes.any or loop.target is None
        )

        async def look_further(observed: ObservedState, stack: Stack) -> ObservedState:
            if engine.is_local:
                observed = await sources.observe_mounts(observed, stack)
            told = (
                *disk.disk_warnings((options.state_dir, options.desired_state)),
                *blindness.warnings(),
            )
            return replace(observed, notes=(*observed.notes, *told)) if told else observed

        loop = Loop(
            engine,
            snapshots,
            wall=time.time,
            chance=random.random,
            ledger=ledger,
            settings=_settings(options, self.notifier.beat),
            hooks=Hooks(
                ledger=keeper.save,
                ended=OutcomeRecorder(generations, recording.chronicle.on_outcome),
                stepped=each(recording.chronicle.on_step, metrics.counters.on_step),
                passed=each(passes, metrics.counters.on_pass),
                found=metrics.counters.on_drift,
                heartbeat=announcer.turned,
            ),
            look_further=look_further,
            keep=evidence.keep,
        )
        blindness = disk.WatchHealth(lambda: loop.wake("the watching of files"))
        recording.follow(lambda: loop.target)
        tree = git_wiring.work_tree(options, generations)
        store = Store(
            options.directory,
            keyed(resolve, key),
            extra_compose=options.compose_file,
            environment=environment(os.environ),
            guard=tree.guard,
            also=tree.signs,
            inputs_changed=inputs_changed.set,
        )
        intake = Acceptor(
            store, generations, loop, wall=time.time, record=recording.audit.append_durable, tree=tree
        )
        pulls = git_wiring.puller(options, tree, intake)
        app = create_app(
            writer=intake,
            snapshots=snapshots,
            settings=ApiSettings(
                host=options.host,
                own=local_host_names(),
                names=options.allowed_host,
                dashboard=package_data.dashboard(),
                age=passes.age,
            ),
            preview=Previewer(loop, generations.sources, wall=time.time),
            logs=lambda container, tail, follow: engine.logs(container, tail=tail, follow=follow),
            previous=evidence.lines,
            metrics=metrics,
            keys=self.keys,
            audit=recording.audit,
            archive=History(generations, intake, loop, now=_clocks, tree=tree),
            webhook=git_wiring.webhook(options, pulls),
        )
        servers = self._servers(app, metrics, announcer)
        stop = self._signals(intake, announcer)
        await asyncio.to_thread(store.recover_interrupted)
        await intake.restore_last()
        first_read, changed = asyncio.Event(), asyncio.Event()
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "files": partial(self._read_files, store, intake, announcer, changed, first_read),
            "watch": partial(
                _watch_files, store, sources, loop, changed, inputs_changed, blindness.reporter("files")
            ),
            "loop": partial(_run_after, first_read, loop),
            "memo": keeper.run,
            "sampler": Sampler(engine, loop, snapshots).run,
            "git": tree.run,
            **({"pull": pulls.run} if pulls else {}),
            "notify": announcer.run,
        }
        tasks = [asyncio.create_task(serve(servers), name="http")]
        tasks += [asyncio.create_task(keep_up(name, part), name=name) for name, part in parts.items()]
        log.info("listening", extra={"address": f"http://{address}", "key_needed": self.keys.required})
        await self._until_told(stop, tasks)
        _force_exit_after()
        announcer.stopping()
        log.info("ending; the containers stay as they are")
        close_streams(app)
        for one, _ in servers:
            one.should_exit = True
        await loop.stop(GRACE)
        await asyncio.wait([t for t in tasks if t.get_name() in {"http", "loop"}], timeout=GRACE + 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await keeper.flush()
        await engine.close()

    def _servers(
        self, app: ASGIApp, metrics: Metrics, announcer: ReadinessNotifier
    ) -> list[tuple[Server, socket.socket]]:
        gate = Gate(limits_for(raise_descriptor_limit()))
        front = server(app, GRACE, gate=gate)
        front.serving = announcer.serving
        servers = [(front, self.listener)]
        if self.metrics_listener is not None:
            second = server(metrics_app(metrics), GRACE, lifespan=False, gate=gate)
            servers.append((second, self.metrics_listener))
        return servers

    def _signals(self, intake: Acceptor, announcer: ReadinessNotifier) -> asyncio.Event:
        stop = asyncio.Event()
        running = asyncio.get_running_loop()
        reloads: set[asyncio.Task[None]] = set()

        async def read_again() -> None:
            async with announcer.reload():
                await intake.reload()

        def reload() -> None:
            task = asyncio.create_task(read_again())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(number, stop.set)
        running.add_signal_handler(signal.SIGHUP, reload)
        return stop

    async def _until_told(self, stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for a stop signal. A component that ends earlier without an error is a bug: exit."""
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        for task in tasks:
            if task.done() and not task.cancelled():
                error = task.exception()
                log.critical("a part of the daemon ended", extra={"part": task.get_name()}, exc_info=error)
                if not stop.is_set():
                    raise SystemExit(1)

    async def _read_files(
        self,
        store: Store,
        intake: Acceptor,
        announcer: ReadinessNotifier,
        changed: asyncio.Event,
        first_read: asyncio.Event,
    ) -> None:
        """Load the files now, at every change event, and at every resync."""
        try:
            await intake.reload()
        finally:
            first_read.set()
        announcer.files_read()
        while True:
            # A read without an event costs a millisecond if nothing changed.
            pause = min(_AGAIN, self.options.resync) if intake.missed else self.options.resync
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await changed.wait()
            changed.clear()
            self._hold_directory(store)
            await intake.reload()

    def _hold_directory(self, store: Store) -> None:
        try:
            if self.directory.hold():
                store.recover_interrupted()
        except AlreadyRunning as error:
            log.critical("another daemon holds the directory", extra={"error": str(error)})
            raise SystemExit(1) from error
        except OSError as error:
            log.warning("the directory can't be held at the moment", extra={"error": str(error)})


async def _watch_files(
    store: Store,
    sources: MountedFiles,
    loop: Loop,
    changed: asyncio.Event,
    inputs_changed: threading.Event,
    report: ProblemListener,
) -> None:
    """Report changed inputs of the store by ``changed``; wake the loop when a mounted file may have changed.

    One watch serves both, because each costs CPU while idle.
    """

    def inputs() -> frozenset[Path]:
        return store.inputs() | sources.files()

    async for found in changes(inputs, wake=inputs_changed, report=report):
        if found & store.inputs():
            changed.set()
        if found & sources.files():
            loop.wake("a mounted file")


async def _run_after(first_read: asyncio.Event, loop: Loop) -> None:
    """Run the loop after the first read of the files, valid or not.

    The files may have changed while the daemon was down. A pass on the restored generation would start what
    they switch off. A read takes at most as long as Docker Compose may (30 s).
    """
    await first_read.wait()
    await loop.run()


def _warm_up_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Start all worker threads at once, so that their memory use is visible from the start.

    The default executor adds a thread whenever all are busy and keeps it: memory would grow for days.
    """
    workers = ThreadPoolExecutor(WORKERS, "worker")
    all_there = threading.Barrier(WORKERS)
    for _ in range(WORKERS):
        workers.submit(all_there.wait)
    loop.set_default_executor(workers)


def _clocks() -> Clock:
    return Clock(time.time(), asyncio.get_running_loop().time())


def _settings(options: RunOptions, beat: float) -> LoopTimings:
    cores = os.cpu_count() or 2
    return LoopTimings(resync=options.resync, limits=Concurrency(start=cores + 1), probes=cores, beat=beat)


def _force_exit_after(deadline: float = DEADLINE, leave: Callable[[int], None] = os._exit) -> None:
    """Exit after ``deadline`` seconds, even if a thread hangs (engine, disk)."""
    timer = threading.Timer(deadline, leave, [0])
    timer.daemon = True
    timer.start()


__all__ = ["EngineError", "PortTaken", "choose_engine", "run"]
