"""What belongs to the stack and what does not: other project names, copies of its containers."""

from __future__ import annotations

from tests.support.harness.sandbox import PROJECT, Sandbox


def test_a_changed_project_name_starts_nothing_a_second_time(yard: Sandbox) -> None:
    mark, ids = yard.recorder.mark(), yard.ids()
    yard.edit("stack.yaml", "name: small\n", "name: large\n")
    status = yard.daemon.until(lambda s: s["groups"]["base"]["reason"] == "project_renamed")
    message = status["groups"]["base"]["message"]
    assert "small-db" in message
    assert "2 volumes (small_cache-data, small_db-data)" in message
    assert message in status["warnings"]
    planned = yard.daemon.cli("plan", local=True)
    assert planned.returncode == 0, planned.stderr
    assert "would leave behind" in planned.stdout
    yard.edit("stack.yaml", "name: large\n", "name: small\n")
    yard.daemon.converged()
    assert yard.ids() == ids
    assert not yard.recorder.touched(mark, PROJECT)
    assert not yard.recorder.touched(mark, "large")


def test_a_copy_of_a_container_is_no_container_of_the_service(yard: Sandbox) -> None:
    yard.docker.commit("small-cache", "copied", "1")
    copy = yard.stranger("debug", image="copied:1")
    yard.daemon.until(lambda s: any("debug" in warning for warning in s["warnings"]))
    # Compose would take the copy for the service's own, and make none.
    mark = yard.recorder.mark()
    yard.docker.remove_container("small-cache", force=True)
    yard.recorder.until(lambda e: (e.service, e.action) == ("cache", "start"), since=mark)
    yard.daemon.converged()
    assert yard.one("cache")["State"]["Running"]
    assert yard.docker.inspect_container(copy)["State"]["Running"]
    assert not [e for e in yard.recorder.touched(mark, PROJECT) if e.id == copy]
    yard.docker.remove_container(copy, force=True)
