"""Which containers belong to the stack: other project names, copies of its containers."""

from __future__ import annotations

from tests.support.harness.sandbox import PROJECT, Sandbox


def test_changed_project_name_starts_nothing_a_second_time(sandbox: Sandbox) -> None:
    mark, ids = sandbox.recorder.mark(), sandbox.ids()
    sandbox.edit("stack.yaml", "name: small\n", "name: large\n")
    status = sandbox.daemon.until(lambda s: s["groups"]["base"]["reason"] == "project_renamed")
    message = status["groups"]["base"]["message"]
    assert "small-db" in message
    assert "2 volumes (small_cache-data, small_db-data)" in message
    assert message in status["warnings"]
    planned = sandbox.daemon.cli("plan", local=True)
    assert planned.returncode == 0, planned.stderr
    assert "would leave behind" in planned.stdout
    sandbox.edit("stack.yaml", "name: large\n", "name: small\n")
    sandbox.daemon.converged()
    assert sandbox.ids() == ids
    assert not sandbox.recorder.touched(mark, PROJECT)
    assert not sandbox.recorder.touched(mark, "large")


def test_copy_of_a_container_is_not_a_container_of_the_service(sandbox: Sandbox) -> None:
    sandbox.docker.commit("small-cache", "copied", "1")
    copy = sandbox.stranger("debug", image="copied:1")
    sandbox.daemon.until(lambda s: any("debug" in warning for warning in s["warnings"]))
    # Compose would count the copy as the service's container and create none.
    mark = sandbox.recorder.mark()
    sandbox.docker.remove_container("small-cache", force=True)
    sandbox.recorder.until(lambda e: (e.service, e.action) == ("cache", "start"), since=mark)
    sandbox.daemon.converged()
    assert sandbox.one("cache")["State"]["Running"]
    assert sandbox.docker.inspect_container(copy)["State"]["Running"]
    assert not [e for e in sandbox.recorder.touched(mark, PROJECT) if e.id == copy]
    sandbox.docker.remove_container(copy, force=True)
