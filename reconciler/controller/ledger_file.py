"""Saves the ledger to disk outside the loop. Losing the last half second of it is harmless."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.host.atomic_files import write_file
from reconciler.host.untrusted import MALFORMED, read_regular
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.ledger_updates import for_boot

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds between two writes."""

NAME = "ledger.json"
BOOT = Path("/proc/sys/kernel/random/boot_id")


def read(state_dir: Path, now: Clock) -> Ledger:
    """Read the saved ledger; return an empty one if the file is missing or can't be read."""
    path, boot = state_dir / NAME, boot_id()
    try:
        return for_boot(decode_ledger(read_regular(path), now), boot)
    except FileNotFoundError:
        return Ledger(boot=boot)
    except (OSError, *MALFORMED) as error:
        log.warning("the ledger can't be read; a new one begins", extra={"error": str(error)})
        with suppress(OSError):
            path.replace(path.with_suffix(".damaged"))
        return Ledger(boot=boot)


def boot_id() -> str:
    """Return the id of this boot of the machine; empty if the system does not report one."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


class LedgerWriter:
    """Writes the newest ledger, at most twice a second, in a thread."""

    def __init__(self, state_dir: Path, write: Callable[[Path, bytes], None] = write_file) -> None:
        self._path = state_dir / NAME
        self._write = write
        self._newest: Ledger | None = None
        self._scheduled = asyncio.Event()

    def save(self, ledger: Ledger) -> None:
        """Schedule this ledger for writing."""
        self._newest = ledger
        self._scheduled.set()

    async def run(self) -> None:
        """Write scheduled ledgers until cancelled; call ``flush`` afterwards."""
        while True:
            await self._scheduled.wait()
            self._scheduled.clear()
            await self.flush()
            await asyncio.sleep(PAUSE)

    async def flush(self) -> None:
        """Write the scheduled ledger now. A write error is logged and loses the ledger, not the daemon."""
        ledger, self._newest = self._newest, None
        if ledger is None:
            return
        content = encode_ledger(ledger)
        try:
            await asyncio.to_thread(self._write, self._path, content)
        except OSError as error:
            log.warning("the ledger can't be written", extra={"error": str(error)})
