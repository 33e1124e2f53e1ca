"""Runs ``service-manager`` with a clock that can jump, recorded fsyncs, and optionally as a broken build.

Nothing else differs from the real program: same ``main``, same arguments. Environment variables control it:
``CHAOS_CLOCK`` names a file with the offset of the wall clock in seconds, ``CHAOS_SYNCED`` a file that gets a
line for each inode that was synced, ``CHAOS_BOX`` the memory cgroup to join, ``CHAOS_BROKEN`` a broken build.
SIGUSR1 dumps the stacks of all threads.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path


def set_clock(file: Path) -> None:
    """Shift ``time.time`` by the offset in the file, which is read again when it changed."""
    real = time.time
    known: list[float] = [0.0, 0.0]

    def skewed() -> float:
        try:
            changed = file.stat().st_mtime_ns
            if changed != known[0]:
                known[:] = [changed, float(file.read_text() or 0)]
        except (OSError, ValueError):
            pass
        return real() + known[1]

    time.time = skewed


def tell_clock(file: Path, seconds: float) -> None:
    """Write the offset of the clock to the file atomically."""
    whole = file.with_suffix(".new")
    whole.write_text(f"{seconds}")
    whole.replace(file)


def note_syncs(file: Path) -> None:
    """Record which inodes are synced."""
    real = os.fsync
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def noted(descriptor: int) -> None:
        real(descriptor)
        found = os.fstat(descriptor)
        os.write(log, f"{found.st_dev}:{found.st_ino}\n".encode())

    os.fsync = noted  # type: ignore[assignment]


def main() -> int:
    """Set up, then run the real program."""
    faulthandler.register(signal.SIGUSR1)
    if "CHAOS_BOX" in os.environ:
        Path(os.environ["CHAOS_BOX"]).write_text("0")
    if "CHAOS_CLOCK" in os.environ:
        set_clock(Path(os.environ["CHAOS_CLOCK"]))
    if "CHAOS_SYNCED" in os.environ:
        note_syncs(Path(os.environ["CHAOS_SYNCED"]))
    if os.environ.get("CHAOS_BROKEN"):
        from tests.chaos.broken_builds import BUILDS

        BUILDS[os.environ["CHAOS_BROKEN"]].spoil()
    from reconciler.cli.main import main as real

    return real()


if __name__ == "__main__":
    sys.exit(main())
