"""The checks of ``doctor`` for the host: port, memory, cgroups, git, inotify, disk."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

from reconciler.cli.client import Client, ClientError
from reconciler.cli.doctor.context import CheckContext
from reconciler.desired_state.file_watch import watch_problem
from reconciler.desired_state.store import LoadedState
from reconciler.errors import ServiceManagerError
from reconciler.git.obstacles import find_obstacles
from reconciler.git.setup import hook_missing
from reconciler.host.ports import bind_error, port_owner
from reconciler.host.untrusted import MALFORMED
from reconciler.model.diagnosis import OK, PROBLEM, WARN, Check
from reconciler.model.json_text import load_json
from reconciler.options import Address

_MB = 10**6
_LEAST_FREE = 10**9
_LITTLE_FREE = 0.1
_WATCHES = 8192
_INSTANCES = 64


def check_port(machine: CheckContext) -> Check:
    """Check that the port is free, or used by a service-manager."""
    name = f"port {machine.port}"
    where = Address(machine.host, machine.port)
    reason = bind_error(machine.host, machine.port)
    if reason is None:
        return Check(name, OK, f"{where} is free")
    if reason == errno.EADDRINUSE:
        version = _service_manager_at(where)
        if version:
            return Check(name, OK, f"a service-manager {version} answers at {where}")
        owner = port_owner(machine.port, machine.root / "proc")
        return Check(
            name,
            PROBLEM,
            f"{where} is used by {owner or 'another program'}",
            "stop it, or choose another --port",
        )
    if reason == errno.EACCES:
        return Check(
            name, PROBLEM, f"{where}: only root may use ports below 1024", "choose a --port from 1024 upwards"
        )
    if reason == errno.EADDRNOTAVAIL:
        return Check(
            name,
            PROBLEM,
            f"{machine.host} is no address of this machine",
            "`ip address` lists them; choose one with --host",
        )
    return Check(name, PROBLEM, f"{where}: {os.strerror(reason)}", "check --host and --port")


def _service_manager_at(where: Address) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)  # noqa: S104 - read, not bound
    try:
        answer = Client(f"http://{Address(host, where.port)}", timeout=2.0).get("/healthz")
    except ClientError:
        return ""
    expected = isinstance(answer, dict) and answer.keys() == {"status", "version"}
    return str(answer["version"]) if expected else ""


def check_memory(machine: CheckContext) -> Check:
    """Check that the groups that are on fit into memory, by their estimates."""
    name = "memory"
    total = _total_memory(machine)
    if not total:
        return Check(
            name, WARN, "the amount of memory is unknown", "compare the estimates in stack.yaml yourself"
        )
    loaded = machine.loaded
    if not isinstance(loaded, LoadedState):
        return Check(name, OK, f"{total // _MB} MB")
    groups = loaded.stack.groups.values()
    pilot = loaded.stack.pilot.memory
    on = pilot + sum(group.memory for group in groups if loaded.desired.groups[group.name].on)
    everything = pilot + sum(group.memory for group in groups)
    message = (
        f"{total // _MB} MB; about {on // _MB} MB for the groups that are on, "
        f"{everything // _MB} MB with every group on"
    )
    remedy = "switch off groups, or correct the estimates in stack.yaml (`service-manager status`)"
    if on > total:
        return Check(name, PROBLEM, message, remedy)
    if on > 0.9 * total:
        return Check(name, WARN, message, remedy)
    return Check(name, OK, message)


def _total_memory(machine: CheckContext) -> int:
    # Containers run on the engine's host, which may be another machine than this one.
    info = machine.engine
    if not isinstance(info, ServiceManagerError) and info.memory:
        return info.memory
    for line in machine.text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def check_cgroup(machine: CheckContext) -> Check:
    """Check that the kernel accounts memory: without it there is no usage per service and no limit."""
    name = "cgroup"
    remedy = "add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line, and reboot"
    controllers = machine.text("/sys/fs/cgroup/cgroup.controllers")
    if controllers:
        if "memory" in controllers.split():
            return Check(name, OK, "version 2, with memory accounting")
        return Check(
            name, WARN, "version 2, without memory accounting: no usage per service, no limits", remedy
        )
    for line in machine.text("/proc/cgroups").splitlines():
        fields = line.split()
        if fields[:1] == ["memory"]:
            if fields[-1] == "1":
                return Check(name, OK, "version 1, with memory accounting")
            return Check(
                name, WARN, "version 1, without memory accounting: no usage per service, no limits", remedy
            )
    return Check(name, WARN, "no cgroup file system is visible: no usage per service", remedy)


def check_git(machine: CheckContext) -> Check:
    """Check that git is installed, hooks work, and nothing in the repository keeps git from working."""
    name = "git"
    git = shutil.which("git", path=machine.environ.get("PATH"))
    if git is None:
        return Check(
            name,
            WARN,
            "is not installed: changes of desired state can't be committed",
            "`apt install git`, if needed",
        )
    missing = hook_missing(machine.desired_state)
    if missing:
        message = f"every push is refused: its hook calls {missing}, which does not exist"
        return Check(name, PROBLEM, message, f"`service-manager git init {machine.desired_state}` again")
    obstacles = find_obstacles(machine.desired_state)
    if obstacles:
        message, remedy = ("; ".join(texts) for texts in zip(*obstacles, strict=True))
        return Check(name, PROBLEM, message, remedy)
    done = subprocess.run([git, "--version"], capture_output=True, text=True, timeout=10, check=False)
    return Check(name, OK, done.stdout.strip().removeprefix("git version ") or git)


def check_inotify(machine: CheckContext) -> Check:
    """Check that the kernel can watch enough files."""
    name = "inotify"
    values = {
        key: int(machine.text(f"/proc/sys/fs/inotify/{key}").strip() or 0)
        for key in ("max_user_watches", "max_user_instances")
    }
    watches, instances = values["max_user_watches"], values["max_user_instances"]
    if not watches:
        return Check(name, WARN, "is not available: the daemon polls the files every second instead", "")
    message = f"{watches} watches, {instances} instances per user"
    refused = watch_problem(_existing_ancestor(machine.desired_state))
    if refused:
        message = f"{message}, and {refused}: the daemon polls the files every second instead"
        return Check(
            name,
            WARN,
            message,
            "stop the programs that use them (`lsof | grep inotify`), or raise the limits",
        )
    low = {"max_user_watches": (watches, _WATCHES), "max_user_instances": (instances, _INSTANCES)}
    wanted = [f"fs.inotify.{key}={8 * least}" for key, (value, least) in low.items() if value < least]
    if wanted:
        remedy = f"`sudo sysctl {' '.join(wanted)}`, and add it to /etc/sysctl.d/"
        return Check(name, WARN, f"{message}: other programs may use them up", remedy)
    return Check(name, OK, message)


def check_state(machine: CheckContext) -> Check:
    """Check that the state directory is writable, or can be created."""
    name = "state directory"
    folder = _existing_ancestor(machine.state_dir)
    if not folder.is_dir():
        return Check(name, PROBLEM, f"{folder} is not a directory", "move it, or choose another --state-dir")
    if not os.access(folder, os.W_OK | os.X_OK):
        action = "written" if folder == machine.state_dir else "created"
        remedy = "run as its owner, or choose another with --state-dir (the daemon may be another user)"
        return Check(name, WARN, f"{machine.state_dir} can't be {action} by this user", remedy)
    return Check(
        name, OK, str(machine.state_dir) + ("" if folder == machine.state_dir else " (does not exist yet)")
    )


def check_disk(machine: CheckContext) -> Check:
    """Check that there is enough space where the engine and the daemon write."""
    name = "disk space"
    parts, worst, remedy = [], OK, ""
    for what, path in ((machine.kind, _engine_root(machine)), ("state", machine.state_dir)):
        usage = shutil.disk_usage(_existing_ancestor(path))
        parts.append(f"{what}: {usage.free / 10**9:.1f} GB free of {usage.total / 10**9:.1f} in {path}")
        if usage.free < _LEAST_FREE:
            worst = PROBLEM
        elif usage.free < _LITTLE_FREE * usage.total and worst == OK:
            worst = WARN
    if worst != OK:
        tool = "podman" if machine.kind == "podman" else "docker"
        remedy = f"`{tool} system df` shows what uses the space, `{tool} image prune` removes unused images"
    return Check(name, worst, "; ".join(parts), remedy)


def _engine_root(machine: CheckContext) -> Path:
    if machine.kind == "podman":
        return machine.root / "var/lib/containers"
    try:
        content = load_json(machine.text("/etc/docker/daemon.json"))
        return Path(content["data-root"])
    except MALFORMED:
        return machine.root / "var/lib/docker"


def _existing_ancestor(path: Path) -> Path:
    """Return the path, or its nearest ancestor that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
