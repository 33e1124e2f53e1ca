"""Reboot: all of the engine dies at once, and /run is empty afterwards (PITFALLS rows 17 and 20)."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.harness.engine_recorder import SERVICE
from tests.support.harness.sandbox import COMPOSE, PROJECT, STACK, Sandbox


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def power_cut(sandbox: Sandbox) -> None:
    """Kill the engine, its containerd, all shims and all containers, and empty /run."""
    engine = sandbox.engine
    pids = [c["State"]["Pid"] for c in sandbox.recorder.all_containers() if c["State"]["Pid"]]
    shims = {int(Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()[1]) for p in pids}
    containerd = int((engine.folder / "exec" / "containerd" / "containerd.pid").read_text())
    process = engine._process
    assert process is not None
    sandbox.restarts += 1
    for pid in (process.pid, containerd, *shims, *pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    engine._process = None
    for line in Path("/proc/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith(str(engine.folder / "exec")):
            subprocess.run(["umount", "-l", place], check=False)
    shutil.rmtree(engine.folder / "exec", ignore_errors=True)


@pytest.mark.pitfall(17, 20)
@pytest.mark.parametrize("order", ["engine first", "daemon first"])
def test_stack_starts_after_a_reboot_and_interrupted_one_shots_run_again(
    sandbox: Sandbox, order: str
) -> None:
    long = COMPOSE.replace('{STANDIN_RUN_FOR: "0.1"}', '{STANDIN_RUN_FOR: "${RUN}"}')
    sandbox.save(".env", "RUN=1000\n")
    before = int(sandbox.daemon.get("/services/status")["generation"])
    sandbox.save("stack.yaml", STACK + "restart: managed\n")
    sandbox.save("compose.yaml", long)
    sandbox.next_generation(before)
    sandbox.daemon.until(lambda s: sandbox.daemon.service("migrate", s)["status"] == "running")
    sandbox.daemon.kill()
    mark = sandbox.recorder.mark()
    power_cut(sandbox)
    if order == "engine first":
        sandbox.engine.start()
        assert sandbox.one("migrate")["State"]["Status"] == "exited"
        sandbox.daemon.start()
    else:
        sandbox.daemon.start()
        assert sandbox.daemon.get("/services/status")["engine"]["reachable"] is False
        sandbox.engine.start()
    sandbox.daemon.until(lambda s: sandbox.daemon.service("migrate", s)["status"] == "running", 60)
    assert not sandbox.daemon.service("migrate")["done"]
    assert not sandbox.one("api")["State"]["Running"]
    (sandbox.desired / ".env").unlink()
    sandbox.save("compose.yaml", COMPOSE)
    sandbox.recorder.until(lambda e: e.action == "start" and e.service == "api", since=mark, within=60)
    sandbox.daemon.converged(within=60)
    sandbox.save("stack.yaml", STACK)
    sandbox.daemon.converged(sandbox.on_disk(), within=60)
    sandbox.is_true()
    assert {c["Config"]["Labels"].get(SERVICE) for c in sandbox.recorder.containers(PROJECT)} >= {"db", "api"}
    # Collect the SDK clients' sockets to the dead engine here, without a warning.
    gc.collect()
