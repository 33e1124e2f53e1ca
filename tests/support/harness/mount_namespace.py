"""A folder as the root file system of a program, in its own mount namespace.

More than a chroot: Docker unpacks images with `pivot_root`, which needs a root that is a mount. The
program's mounts are visible only there and end with its last process.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SET_UP = """
set -e
mount --bind "$1" "$1"
cd "$1"
for place in /dev /proc /sys /tmp; do mount --rbind "$place" ".$place"; done
mount -t tmpfs tmpfs run
mount -o remount,bind,ro .
pivot_root . mnt
umount -l /mnt
echo ready
read -r _
"""


class MountNamespace:
    """``root`` read-only, with its own /run and this machine's /dev, /proc, /sys and /tmp."""

    def __init__(self, root: Path) -> None:
        # Slave: later mounts outside appear inside, never the other way round.
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _SET_UP, "sh", str(root)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"ready\n":
                raise OSError(f"no mount namespace can be made of {root}")
            self.descriptor = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY)

    @property
    def entry(self) -> tuple[str, ...]:
        """The prefix of a command to run in it, with ``descriptor`` passed on."""
        return ("nsenter", f"--mount=/proc/self/fd/{self.descriptor}")

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)
