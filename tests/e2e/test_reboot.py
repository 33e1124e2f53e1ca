"""The power goes: all of the engine dies at once, and what lies in /run is gone (PITFALLS rows 17 and 20)."""

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


def power_cut(yard: Sandbox) -> None:
    """Kill the engine, its containerd, all shims and all containers, and take away what lies in /run."""
    engine = yard.engine
    pids = [c["State"]["Pid"] for c in yard.recorder.all_containers() if c["State"]["Pid"]]
    shims = {int(Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()[1]) for p in pids}
    containerd = int((engine.folder / "exec" / "containerd" / "containerd.pid").read_text())
    process = engine._process
    assert process is not None
    yard.restarts += 1
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
def test_after_a_power_cut_all_comes_up_and_what_was_cut_short_runs_again(yard: Sandbox, order: str) -> None:
    long = COMPOSE.replace('{STANDIN_RUN_FOR: "0.1"}', '{STANDIN_RUN_FOR: "${RUN}"}')
    yard.save(".env", "RUN=1000\n")
    before = int(yard.daemon.get("/services/status")["generation"])
    yard.save("stack.yaml", STACK + "restart: managed\n")
    yard.save("compose.yaml", long)
    yard.next_generation(before)
    yard.daemon.until(lambda s: yard.daemon.service("migrate", s)["status"] == "running")
    yard.daemon.kill()
    mark = yard.recorder.mark()
    power_cut(yard)
    if order == "engine first":
        yard.engine.start()
        assert yard.one("migrate")["State"]["Status"] == "exited"
        yard.daemon.start()
    else:
        yard.daemon.start()
        assert yard.daemon.get("/services/status")["engine"]["reachable"] is False
        yard.engine.start()
    yard.daemon.until(lambda s: yard.daemon.service("migrate", s)["status"] == "running", 60)
    assert not yard.daemon.service("migrate")["done"]
    assert not yard.one("api")["State"]["Running"]
    (yard.desired / ".env").unlink()
    yard.save("compose.yaml", COMPOSE)
    yard.recorder.until(lambda e: e.action == "start" and e.service == "api", since=mark, within=60)
    yard.daemon.converged(within=60)
    yard.save("stack.yaml", STACK)
    yard.daemon.converged(yard.on_disk(), within=60)
    yard.is_true()
    assert {c["Config"]["Labels"].get(SERVICE) for c in yard.recorder.containers(PROJECT)} >= {"db", "api"}
    # What the SDK's clients had open to the engine that is gone: let go of here, where nobody minds.
    gc.collect()
