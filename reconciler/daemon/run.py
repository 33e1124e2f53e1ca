"""The composition root: locks the directories, runs all components, and stops them at a signal."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from reconciler.auth import bind_check
from reconciler.auth.credentials import load_api_key
from reconciler.auth.keys import KeyRing, KeyStoreError
from reconciler.daemon import collector
from reconciler.daemon.audit_session import AuditSession
from reconciler.daemon.components import (
    GRACE,
    Components,
    Controller,
    build_controller,
    build_edge,
    build_state,
)
from reconciler.daemon.desired_state_lock import DesiredStateLock
from reconciler.daemon.file_reload import watch_files
from reconciler.daemon.sd_notify import Notifier
from reconciler.daemon.servers import PortTaken, listen, serve
from reconciler.daemon.task_runner import TaskRunner
from reconciler.errors import AlreadyRunning
from reconciler.host import logging_setup, state_directory
from reconciler.host.directory_lock import DirectoryLock
from reconciler.options import Address, RunOptions

log = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.001
"""The interpreter's switch interval in seconds. With Python's default of 5 ms, each of the few thread
switches of a disk write takes that long while the loop is planning."""
WORKERS = 6
"""Threads for blocking calls (files, git, the audit log)."""
DEADLINE = 12.0
"""Seconds after a stop signal at which the process exits, even if a call hangs."""


def run(options: RunOptions) -> int:
    """Run the daemon in the foreground; return 0 after SIGTERM or SIGINT, 1 if it can't start."""
    logging_setup.set_up()
    sys.setswitchinterval(SWITCH_INTERVAL)
    # On SIGABRT (watchdog), dump the stacks of all threads.
    faulthandler.enable()
    notifier = Notifier.from_environment()
    try:
        key = load_api_key()
        state_directory.prepare(options.state_dir)
        safe = options.insecure or not bind_check.serves_others(options.host, options.allowed_host)
        # An address that is safe only with a key keeps needing one after the last key is revoked.
        keys = KeyRing(options.state_dir, environment=key, always=not safe)
        bind_check.check(
            options.host, options.allowed_host, keyless=keys.empty, insecure=options.insecure, key=key
        )
        with DirectoryLock(options.state_dir), DesiredStateLock(options.desired_state) as held:
            listener = listen(Address(options.host, options.port))
            scraped = options.metrics_listen
            second = listen(scraped, "--metrics-listen", ahead=True) if scraped else None
            asyncio.run(_Daemon(options, held, listener, second, keys, notifier).run())
    except KeyStoreError as error:
        logging_setup.emit(f"{error}\n  → {error.remedy}" if error.remedy else str(error))
        return 1
    except (
        AlreadyRunning,
        PortTaken,
        bind_check.UnsafeBind,
        state_directory.UnsafeStateDirectory,
        OSError,
    ) as error:
        logging_setup.emit(str(error))
        return 1
    return 0


@dataclass(frozen=True, slots=True)
class _Daemon:
    options: RunOptions
    directory: DesiredStateLock
    listener: socket.socket
    metrics_listener: socket.socket | None
    keys: KeyRing
    notifier: Notifier

    async def run(self) -> None:
        session = AuditSession(self.options.state_dir, time.time)
        failed = True
        try:
            await self._serve_forever(session)
            failed = False
        finally:
            await session.end(failed=failed)

    async def _serve_forever(self, session: AuditSession) -> None:
        _warm_up_threads(asyncio.get_running_loop())
        components = await self._build(session)
        stop = _handle_signals(components.controller)
        await asyncio.to_thread(components.state.store.recover_interrupted)
        await components.controller.files.restore_last()
        collector.set_policy()
        tasks = TaskRunner()
        _start(components, tasks)
        address = Address(self.options.host, self.options.port)
        log.info("listening", extra={"address": f"http://{address}", "key_needed": self.keys.required})
        await tasks.wait(stop)
        await _stop(components, tasks)

    async def _build(self, session: AuditSession) -> Components:
        state = await build_state(self.options, session)
        controller = build_controller(self.options, state, self.notifier)
        edge = build_edge(
            self.options,
            state,
            controller,
            keys=self.keys,
            directory=self.directory,
            listener=self.listener,
            metrics_listener=self.metrics_listener,
        )
        return Components(state, controller, edge)


def _start(components: Components, tasks: TaskRunner) -> None:
    """Start all components; HTTP first, so that a client sees the start."""
    state, controller, edge = components.state, components.controller, components.edge
    tasks.start("http", partial(serve, edge.servers), restart=False)
    tasks.start("files", edge.files.run)
    tasks.start("watch", partial(_watch, components))
    tasks.start("loop", partial(edge.files.run_after_first_read, controller.loop))
    tasks.start("memo", state.ledger_writer.run)
    if controller.sampler is not None:
        tasks.start("sampler", controller.sampler.run)
    tasks.start("git", state.tree.run)
    if controller.puller is not None:
        tasks.start("pull", controller.puller.run)
    tasks.start("notify", controller.readiness.run)


async def _watch(components: Components) -> None:
    state, controller, wake = components.state, components.controller, components.controller.loop.wake
    await watch_files(
        state.store,
        controller.mounts,
        state.inputs_changed,
        changed=components.edge.files.changed,
        wake=wake,
        report=controller.watching.reporter("files", wake),
    )


async def _stop(components: Components, tasks: TaskRunner) -> None:
    """Stop in order: responses, the loop with its steps, all other tasks, then what they write to."""
    state, controller, edge = components.state, components.controller, components.edge
    _force_exit_after()
    controller.readiness.stopping()
    log.info("ending; the containers stay as they are")
    edge.close_streams()
    for server, _ in edge.servers:
        server.should_exit = True
    await controller.loop.stop(GRACE)
    await tasks.wait_for_end("http", "loop", timeout=GRACE + 1)
    await tasks.cancel()
    await state.ledger_writer.flush()
    await state.engine.close()


def _handle_signals(controller: Controller) -> asyncio.Event:
    """Reload at SIGHUP; return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        async with controller.readiness.reload():
            await controller.files.reload()

    def start_reload() -> None:
        task = asyncio.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)
    running.add_signal_handler(signal.SIGHUP, start_reload)
    return stop


def _warm_up_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Start all worker threads at once, so that their memory use is visible from the start.

    The default executor adds a thread whenever all are busy and keeps it: memory would grow for days.
    """
    workers = ThreadPoolExecutor(WORKERS, "worker")
    all_there = threading.Barrier(WORKERS)
    for _ in range(WORKERS):
        workers.submit(all_there.wait)
    loop.set_default_executor(workers)


def _force_exit_after(deadline: float = DEADLINE, leave: Callable[[int], None] = os._exit) -> None:
    """Exit after ``deadline`` seconds, even if a thread hangs (engine, disk)."""
    timer = threading.Timer(deadline, leave, [0])
    timer.daemon = True
    timer.start()


__all__ = ["PortTaken", "run"]
