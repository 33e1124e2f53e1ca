"""Restarts the daemon's components after errors: bad input of one must not end the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_WELL_AFTER = 60.0
"""Seconds without failure after which the pause is reset."""


async def keep_up(name: str, part: Callable[[], Awaitable[None]]) -> None:
    """Run a component of the daemon; after an error restart it, at most a minute later.

    Logs each kind of error with its traceback once, then in one line. Returns when the component returns;
    cancellation is passed on.
    """
    loop = asyncio.get_running_loop()
    logged: set[str] = set()
    pause = _FIRST_PAUSE
    while True:
        began = loop.time()
        try:
            await part()
        except Exception as error:
            if loop.time() - began > _WELL_AFTER:
                pause = _FIRST_PAUSE
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            kind = f"{type(error).__name__} in line {where.tb_lineno if where else 0}"
            extra = {"part": name, "seconds": pause}
            if kind in logged:
                log.error("a part of the daemon failed again; it is started again", extra=extra)  # noqa: TRY400
            else:
                log.exception("a part of the daemon failed; it is started again", extra=extra)
            logged.add(kind)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
