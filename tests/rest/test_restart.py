"""Changes of the files while no daemon runs."""

from __future__ import annotations

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import ask


def test_groups_switched_off_while_the_daemon_is_down_are_never_started(a_daemon: Start) -> None:
    daemon = a_daemon()
    daemon.converged(1)
    newest = ask(daemon, "GET", "/services/audit?limit=1").value["entries"][-1]["id"]
    daemon.end()
    groups = daemon.desired / "groups.yaml"
    groups.write_text(groups.read_text().replace("kafka: on", "kafka: off"))
    # The simulated engine starts without containers, so a pass on the old generation would create them.
    daemon.start()
    daemon.converged(2)
    entries = ask(daemon, "GET", "/services/audit?limit=500").value["entries"]
    actions = [entry["action"] for entry in entries if entry["id"] > newest]
    assert [action for action in actions if action.startswith("container_")] == []
