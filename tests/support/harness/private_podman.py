"""A private Podman for tests: Debian's packages in namespaces of their own, behind a Docker-like socket."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.harness.private_engine import PrivateEngine, PrivateEngineError
from tests.support.hosts import debian

_CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
"""Exists where version 2 is the only one."""
RELEASE = "trixie"
"""The Debian release that provides Podman: 5.4."""
_NEEDED = ("podman", "crun", "aardvark-dns", "catatonit", "nftables", "procps")

# Podman refuses cgroups of both versions at once, so /sys is mounted again, with version 2 alone. Its
# networks and firewall rules stay in a network namespace of its own.
_SET_UP = """
set -e
root=$1 home=$2
ip link set lo up
mount --bind "$root" "$root"
cd "$root"
for place in /dev /proc /tmp; do mount --rbind "$place" ".$place"; done
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -o remount,bind,ro .
pivot_root . mnt
umount -l /mnt
echo ready
read -r _
"""


class PrivatePodman(PrivateEngine):
    """Podman's service in a folder of its own; its containers outlive it, as those of a killed Docker."""

    def __init__(self) -> None:
        super().__init__("")
        for name in ("root", "run", "tmp"):
            (self.folder / name).mkdir()
        # Version 2 may have no controllers here, and Podman limits processes unless a setting says otherwise.
        (self.folder / "containers.conf").write_text(
            "[containers]\npids_limit = 0\n"
            # Seconds for which a helper process outlives each exec; 300 by default.
            "[engine]\nexit_command_delay = 10\n"
        )
        self._descriptors: tuple[int, ...] = ()

    @property
    def environ(self) -> dict[str, str]:
        """See ``PrivateEngine.environ``."""
        return super().environ | {"CONTAINER_HOST": self.host}

    @property
    def surroundings(self) -> dict[str, str]:
        """See ``PrivateEngine.surroundings``."""
        return {
            "HOME": str(self.folder),
            "PATH": "/usr/sbin:/usr/bin",
            "TMPDIR": f"{self.folder}/tmp",
            "CONTAINERS_CONF": f"{self.folder}/containers.conf",
        }

    @property
    def measures(self) -> bool:
        """Whether this machine's cgroups of version 2 count memory."""
        return _CONTROLLERS.exists() and "memory" in _CONTROLLERS.read_text().split()

    def command(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """See ``PrivateEngine.command``."""
        if not self._descriptors:
            self._descriptors = self._namespaces()
        mounts, network = self._descriptors
        program = (
            *("nsenter", f"--mount=/proc/self/fd/{mounts}", f"--net=/proc/self/fd/{network}"),
            *("podman", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"),
            # Without systemd, as on a machine that has none.
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
            *("system", "service", "--time", "0", self.host),
        )
        return program, self._descriptors

    def destroy(self) -> None:
        """See ``PrivateEngine.destroy``."""
        super().destroy()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _namespaces(self) -> tuple[int, int]:
        root = debian.programs(RELEASE, _NEEDED)
        unshare = ("unshare", "--mount", "--net", "--propagation", "slave")
        command = [*unshare, "sh", "-c", _SET_UP, "sh", str(root), str(self.folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"ready\n":
                raise PrivateEngineError(f"no namespaces can be made of {root}")
            own = f"/proc/{holder.pid}/ns"
            return os.open(f"{own}/mnt", os.O_RDONLY), os.open(f"{own}/net", os.O_RDONLY)
