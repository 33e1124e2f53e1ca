"""Concurrent writers: eight clients over REST, and an editor that rewrites the file at the same time.

The editor takes no lock: it saves a text that is based on an earlier read, and so may revert a client's
change. The audit log records that like any other edit. The *daemon* must lose neither a change that it
acknowledged nor an edit that was saved.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import ask, await_open
from tests.support.harness.daemon import Daemon

CLIENTS = 8
FLIPS = 200
CLIENT_GROUPS = [f"g{number}" for number in range(CLIENTS)]
GROUPS = [*CLIENT_GROUPS, "desk"]
_MARK = re.compile(r"^# edit (\d+)$", re.MULTILINE)
_STATE = re.compile(r"^  (\w+): +(on|off)\b", re.MULTILINE)
_CHANGE = re.compile(r"(\w+): (on|off) → (on|off)")


def write_stack(desired: Path) -> None:
    """Write nine groups of one service each without dependencies, so that no edit is rejected."""
    services = "".join(f"  s-{name}: {{image: 'standin:1', command: run}}\n" for name in GROUPS)
    (desired / "compose.yaml").write_text(f"services:\n{services}")
    groups = "".join(f"  {name}: {{services: [s-{name}], memory: 10MB}}\n" for name in GROUPS)
    (desired / "stack.yaml").write_text(f"name: writers\ncompose: [compose.yaml]\ngroups:\n{groups}")
    lines = "".join(f"  {name}: off      # only {name} edits this\n" for name in GROUPS)
    (desired / "groups.yaml").write_text(f"# edit 0\ngroups:\n{lines}# the end\n")


class Editor:
    """Saves repeatedly, as editors do: replaces the file, or writes it in place."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self.path = path
        self.saved: set[tuple[str, ...]] = set()
        self.edits = 0
        self.lost: list[str] = []
        self.saves = 0
        """Odd while the file is written in place, when a reader may see half of it."""
        self._stop = stop

    def run(self) -> None:
        while not self._stop.is_set():
            text = self._read_saved()
            if text is None:
                return
            self.edits += 1
            text = _MARK.sub(f"# edit {self.edits}", text)
            text = re.sub(r"^  desk: +\w+", f"  desk: {'on' if self.edits % 2 else 'off'}", text, flags=re.M)
            self.saved.add(states(text))
            self._save(text)
            time.sleep(0.05)

    def _read_saved(self) -> str | None:
        """Read the text with the last edit; None if that is lost.

        An edit in place that raced with a replace is back once the daemon has read the files again.
        """
        deadline = time.monotonic() + 10
        while True:
            text = self.path.read_text()
            found = _MARK.search(text)
            if found is not None and int(found[1]) == self.edits:
                return text
            if time.monotonic() > deadline:
                self.lost.append(f"saved edit {self.edits}, read {found[1] if found else text!r}")
                return None
            time.sleep(0.01)

    def _save(self, text: str) -> None:
        if self.edits % 3:
            new = self.path.with_name(".groups.yaml.swp")
            new.write_text(text)
            new.replace(self.path)
        else:
            self.saves += 1
            with self.path.open("r+") as file:
                file.write(text)
                file.truncate()
            self.saves += 1


def states(text: str) -> tuple[str, ...]:
    found = dict(_STATE.findall(text))
    assert list(found) == GROUPS, text
    return tuple(found[name] for name in GROUPS)


class Client:
    """Switches one group on one connection; records the acknowledged changes."""

    def __init__(self, daemon: Daemon, group: str) -> None:
        self.group = group
        self.acknowledged: list[tuple[int, str]] = []
        self._port = int(daemon.url.rpartition(":")[2])

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for number in range(FLIPS):
            action = "stop" if number % 2 else "start"
            while True:
                connection.request("POST", f"/services/{action}/{self.group}")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 409 and b"being_written" in body:
                    # The editor has the file open, so the daemon refused the write and changed nothing.
                    time.sleep(0.01)
                    continue
                break
            assert answer.status in {200, 202}, body
            result = YAML(typ="safe").load(body)
            if answer.status == 202:
                self.acknowledged.append((result["generation"], "off" if number % 2 else "on"))
        connection.close()


def watch_file(editor: Editor, stop: threading.Event) -> int:
    """Read the file repeatedly; every text must be complete and name every group."""
    reads = 0
    while not stop.is_set():
        before = editor.saves
        text = editor.path.read_text()
        if before == editor.saves and not before % 2:
            states(text)
            assert text.endswith("# the end\n"), text
            reads += 1
        time.sleep(0.01)
    return reads


def audit(daemon: Daemon) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    before = ""
    while True:
        page = ask(daemon, "GET", f"/services/audit?limit=1000{before}").value
        entries[:0] = page["entries"]
        if page["before"] is None:
            return entries
        before = f"&before={page['before']}"


def accepted(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the entry of every generation after the first, in order."""
    found = [
        e for e in audit(daemon) if e["action"] in {"start", "stop", "edit"} and e["result"] == "accepted"
    ]
    found.sort(key=lambda entry: entry["generation"])
    return [entry for entry in found if entry["generation"] > 1]


@pytest.mark.timeout(400)
def test_concurrent_writers_lose_no_change(a_daemon: Start) -> None:
    daemon = a_daemon(prepare=write_stack)
    await_open(daemon)
    path, stop = daemon.desired / "groups.yaml", threading.Event()
    clients = [Client(daemon, group) for group in CLIENT_GROUPS]
    editor = Editor(path, stop)
    with ThreadPoolExecutor(CLIENTS + 2) as pool:
        writing = [pool.submit(client.run) for client in clients]
        editing, looking = pool.submit(editor.run), pool.submit(watch_file, editor, stop)
        try:
            for done in writing:
                done.result()
        finally:
            stop.set()
        editing.result()
        assert looking.result() > 100
    assert editor.lost == []
    assert editor.edits > 50
    final = states(path.read_text())
    await_converged(daemon, final)

    history = accepted(daemon)
    assert [entry["generation"] for entry in history] == list(range(2, len(history) + 2))
    by_generation = {entry["generation"]: entry for entry in history}
    for client in clients:
        for generation, state in client.acknowledged:
            entry = by_generation[generation]
            assert (entry["target"], entry["user"]) == (client.group, "anonymous")
            assert _CHANGE.findall(entry["message"]) == [
                (client.group, "off" if state == "on" else "on", state)
            ]
    assert replay(history, editor) == final
    assert _MARK.search(path.read_text())[1] == str(editor.edits)  # type: ignore[index]
    assert path.read_text().count(" edits this") == len(GROUPS)


def replay(history: list[dict[str, Any]], editor: Editor) -> tuple[str, ...]:
    """Apply the changes in order; each starts from the state before it, and file edits are saved ones."""
    states = dict.fromkeys(GROUPS, "off")
    for entry in history:
        changes = _CHANGE.findall(entry["message"])
        assert changes, entry
        for group, old, new in changes:
            assert states[group] == old, entry
            states[group] = new
        if entry["user"] == "file":
            assert tuple(states.values()) in editor.saved, entry
        else:
            assert len(changes) == 1, entry
    return tuple(states.values())


def await_converged(daemon: Daemon, final: tuple[str, ...]) -> None:
    """Wait until the daemon shows the states of the file and has converged to them."""
    deadline = time.monotonic() + 30
    while True:
        status = ask(daemon, "GET", "/services/status").value
        shown = tuple(status["groups"][name]["desired"] for name in GROUPS)
        if shown == final and status["converged"] and not status["errors"]:
            assert status["running_services"] == final.count("on")
            return
        assert time.monotonic() < deadline, (shown, final, status["errors"])
        time.sleep(0.05)
