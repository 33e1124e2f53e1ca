"""Builds all components of the daemon, from the bottom to the top: state, controller, edge.

Each function needs only what the ones before it built, so that no component refers to a later one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from api.app import close_streams, create_app
from api.context import Settings as ApiSettings
from api.metrics.registry import Metrics, metrics_app
from reconciler import package_data
from reconciler.auth.keys import KeyRing
from reconciler.controller import ledger_file
from reconciler.controller.crash_logs import CrashLogStore
from reconciler.controller.executor import Concurrency
from reconciler.controller.loop import Loop
from reconciler.controller.loop_hooks import LoopHooks, LoopTimings
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.controller.usage_sampler import Sampler
from reconciler.daemon import git_wiring
from reconciler.daemon.audit_session import AuditSession
from reconciler.daemon.connection_gate import Gate
from reconciler.daemon.desired_state_lock import DesiredStateLock
from reconciler.daemon.file_reload import FileReload
from reconciler.daemon.host_observer import HostObserver
from reconciler.daemon.http_limits import limits_for
from reconciler.daemon.sd_notify import Notifier, ReadinessNotifier
from reconciler.daemon.servers import Server, local_host_names, raise_descriptor_limit, server
from reconciler.desired_state.digest_key_file import keyed, load_key
from reconciler.desired_state.mounted_files import MountedFiles
from reconciler.desired_state.store import Store
from reconciler.engine import Engine, registry
from reconciler.generations.acceptance import Acceptor
from reconciler.generations.desired_state_files import DesiredStateFiles
from reconciler.generations.outcomes import LastPass, OutcomeRecorder, fan_out, publish_outcomes
from reconciler.generations.preview import Previewer
from reconciler.generations.rollback import History
from reconciler.generations.store import Generations
from reconciler.git.pull import Puller
from reconciler.git.work_tree import GitTree
from reconciler.host.disk import WatchHealth
from reconciler.model.capabilities import Capability
from reconciler.model.ledger import Clock, Ledger
from reconciler.options import Address, RunOptions

log = logging.getLogger(__name__)

GRACE = 3.0
"""Seconds that a stop waits for steps in flight, and then for open responses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The engine, and the components that read and write files.

    ``inputs_changed`` is set when there are other files to watch.
    """

    engine: Engine
    ledger: Ledger
    ledger_writer: ledger_file.LedgerWriter
    generations: Generations
    session: AuditSession
    tree: GitTree
    store: Store
    inputs_changed: threading.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """The loop, its inputs, and the readers of its snapshots."""

    loop: Loop
    files: DesiredStateFiles
    puller: Puller | None
    snapshots: SnapshotPublisher
    metrics: Metrics
    readiness: ReadinessNotifier
    passes: LastPass
    logs: CrashLogStore
    mounts: MountedFiles
    watching: WatchHealth
    sampler: Sampler | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The components that other programs use: HTTP servers with their listening sockets, and the files.

    ``close_streams`` ends the responses that have no end of their own.
    """

    close_streams: Callable[[], None]
    servers: tuple[tuple[Server, socket.socket], ...]
    files: FileReload


@dataclass(frozen=True, slots=True)
class Components:
    """All components of one run of the daemon."""

    state: State
    controller: Controller
    edge: Edge


async def build_state(options: RunOptions, session: AuditSession) -> State:
    """Choose the engine and read the state directory; starts the audit session."""
    kind = registry.kind(options.engine)
    resolve = kind.resolver(os.environ)
    log.info("using engine", extra={"engine": kind.name, "address": kind.address(os.environ)})
    engine = kind.create(options.state_dir)
    ledger = await asyncio.to_thread(ledger_file.read, options.state_dir, clocks())
    key = await asyncio.to_thread(load_key, options.state_dir)
    generations = await asyncio.to_thread(Generations, options.state_dir, key=key)
    address = str(Address(options.host, options.port))
    await session.begin(generations, engine=options.engine, address=address)
    tree = git_wiring.work_tree(options, generations, resolve)
    inputs_changed = threading.Event()
    store = Store(
        options.directory,
        keyed(resolve, key),
        extra_compose=options.compose_file,
        environment=resolve.environment,
        guard=tree.guard,
        also=tree.signs,
        inputs_changed=inputs_changed.set,
    )
    return State(
        engine=engine,
        ledger=ledger,
        ledger_writer=ledger_file.LedgerWriter(options.state_dir),
        generations=generations,
        session=session,
        tree=tree,
        store=store,
        inputs_changed=inputs_changed,
    )


def build_controller(options: RunOptions, state: State, notifier: Notifier) -> Controller:
    """Build the loop and what feeds it."""
    engine, generations, session = state.engine, state.generations, state.session
    snapshots = SnapshotPublisher()
    publish_outcomes(generations, snapshots)
    passes = LastPass()
    metrics = Metrics(snapshots)
    # Without a valid desired state no pass is due.
    readiness = ReadinessNotifier(
        notifier, snapshots, done=lambda: passes.any or not snapshots.current.generation
    )
    accepting = asyncio.Lock()
    local = Capability.HOST_FILES in engine.capabilities
    mounts = MountedFiles(reading=accepting.locked, files_changed=state.inputs_changed.set)
    logs = CrashLogStore(options.state_dir, lambda container, tail: engine.logs(container.id, tail=tail))
    watching = WatchHealth()
    loop = Loop(
        engine,
        snapshots,
        wall=time.time,
        chance=random.random,
        ledger=state.ledger,
        timings=_timings(options, notifier.beat),
        hooks=LoopHooks(
            on_ledger=state.ledger_writer.save,
            on_generation_end=OutcomeRecorder(generations, session.step_recorder.on_outcome),
            on_step=fan_out(session.step_recorder.on_step, metrics.counters.on_step),
            on_pass=fan_out(passes, metrics.counters.on_pass),
            on_missed_drift=metrics.counters.on_drift,
            on_heartbeat=readiness.on_heartbeat,
        ),
        add_host_state=HostObserver(
            mounts if local else None, (options.state_dir, options.desired_state), watching
        ),
        save_log=logs.store,
    )
    session.follow(lambda: loop.target)
    acceptor = Acceptor(generations, loop, wall=time.time, events=session.events, tree=state.tree)
    files = DesiredStateFiles(state.store, acceptor, tree=state.tree, turn=accepting)
    return Controller(
        loop=loop,
        files=files,
        puller=git_wiring.puller(options, state.tree, files),
        snapshots=snapshots,
        metrics=metrics,
        readiness=readiness,
        passes=passes,
        logs=logs,
        mounts=mounts,
        watching=watching,
        sampler=Sampler(engine, loop, snapshots) if Capability.STATS in engine.capabilities else None,
    )


def build_edge(
    options: RunOptions,
    state: State,
    controller: Controller,
    *,
    keys: KeyRing,
    directory: DesiredStateLock,
    listener: socket.socket,
    metrics_listener: socket.socket | None,
) -> Edge:
    """Build the API, its servers, and the reading of files."""
    engine, loop = state.engine, controller.loop
    app = create_app(
        writer=controller.files,
        snapshots=controller.snapshots,
        settings=ApiSettings(
            host=options.host,
            own=local_host_names(),
            names=options.allowed_host,
            proxies=options.trusted_proxy,
            root_path=options.root_path,
            dashboard=package_data.dashboard(),
            age=controller.passes.age,
        ),
        preview=Previewer(loop, state.generations.sources, wall=time.time),
        logs=lambda container, tail, follow: engine.logs(container, tail=tail, follow=follow),
        captured_logs=controller.logs.lines,
        metrics=controller.metrics,
        keys=keys,
        audit=state.session.audit,
        events=state.session.events,
        history=History(state.generations, controller.files, loop, now=clocks, tree=state.tree),
        webhook=git_wiring.webhook(options, controller.puller),
    )
    gate = Gate(limits_for(raise_descriptor_limit()))
    front = server(app, GRACE, gate=gate)
    front.serving = controller.readiness.serving
    servers = [(front, listener)]
    if metrics_listener is not None:
        second = server(metrics_app(controller.metrics), GRACE, lifespan=False, gate=gate)
        servers.append((second, metrics_listener))
    files = FileReload(
        state.store,
        controller.files,
        controller.readiness,
        directory,
        resync=options.resync,
    )
    return Edge(close_streams=partial(close_streams, app), servers=tuple(servers), files=files)


def clocks() -> Clock:
    """Read the wall clock and the event loop's clock, in seconds."""
    return Clock(time.time(), asyncio.get_running_loop().time())


def _timings(options: RunOptions, beat: float) -> LoopTimings:
    cores = os.cpu_count() or 2
    return LoopTimings(resync=options.resync, limits=Concurrency(start=cores + 1), probes=cores, beat=beat)
