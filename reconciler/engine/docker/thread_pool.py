"""Threads for blocking calls: few, started when needed, ended when idle. They never delay an exit.

The interpreter joins the standard executor's threads when it ends, so one call stuck in a hanging engine
would keep the process alive. These are daemon threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

_IDLE_SECONDS = 10.0

T = TypeVar("T")


class NotStarted(Exception):
    """The deadline passed while the call waited for a thread: nothing was sent."""


class _Job:
    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.begun = False
        self.dropped = False


class DaemonThreadPool:
    """At most ``most`` threads for one kind of call, so that one kind can't starve another."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._count = 0
        self._idle = 0

    async def run(self, work: Callable[[], T], within: float) -> T:
        """Run ``work`` in a thread; return its result.

        Raises:
            NotStarted: no thread was free within ``within`` seconds.
            TimeoutError: it started, but did not end within them; its thread is abandoned.
        """
        job = _Job(work, asyncio.get_running_loop())
        self._submit(job)
        try:
            async with asyncio.timeout(within):
                result: T = await job.future
                return result
        except BaseException as error:
            with self._changed:
                job.dropped = True
            if isinstance(error, TimeoutError) and not job.begun:
                raise NotStarted from error
            raise

    def _submit(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
            if len(self._jobs) > self._idle and self._count < self._most:
                self._count += 1
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            try:
                result, failure = job.work(), None
            except BaseException as error:  # noqa: BLE001 - passed on with the result
                result, failure = None, error
            # The event loop may be closed; then no caller waits.
            with contextlib.suppress(RuntimeError):
                job.loop.call_soon_threadsafe(_settle, job.future, result, failure)

    def _next(self) -> _Job | None:
        with self._changed:
            self._idle += 1
            try:
                while True:
                    while self._jobs:
                        job = self._jobs.popleft()
                        if not job.dropped:
                            job.begun = True
                            return job
                    if not self._changed.wait(_IDLE_SECONDS) and not self._jobs:
                        self._count -= 1
                        return None
            finally:
                self._idle -= 1


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
