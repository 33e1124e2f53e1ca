"""API keys: shown once, stored as digests, valid within a second; listening without a key."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reconciler.audit.query import Query, read, verify
from reconciler.auth import bind_check
from reconciler.auth.credentials import VARIABLE, load_api_key
from reconciler.auth.keys import (
    ENVIRONMENT,
    OPERATOR,
    RESERVED,
    VIEWER,
    KeyFile,
    KeyRing,
    KeyStoreError,
    key_hash,
    make_key,
)
from tests.support.fixtures.stub_server import run_cli

AT = 1_795_500_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- the file -----------------------------------------------------------------------------------------


def test_keys_are_random_and_alphanumeric() -> None:
    keys = {make_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert key.startswith("sm_")
        assert len(key) == 3 + 52
        assert key.isascii()
        assert key.removeprefix("sm_").isalnum()


def test_the_file_holds_only_digests_and_is_private_to_its_owner(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "state")
    made = file.add("ann", OPERATOR, at=AT)
    content = file.path.read_text()
    assert made not in content
    assert made.removeprefix("sm_") not in content
    assert key_hash(made).hex() in content
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    (key,) = file.read()
    assert (key.name, key.role, key.digest, key.created_at) == ("ann", OPERATOR, key_hash(made), AT)


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "a/b", "ä", "a" * 65, "a\n", *sorted(RESERVED)])
def test_invalid_names_are_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyStoreError):
        KeyFile(tmp_path).add(name, OPERATOR, at=AT)
    assert KeyFile(tmp_path).read() == ()


def test_a_name_is_unique_until_its_key_is_revoked(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    first = file.add("ann", VIEWER, at=AT)
    with pytest.raises(KeyStoreError, match="already"):
        file.add("ann", OPERATOR, at=AT)
    assert file.revoke("ann") == 0
    with pytest.raises(KeyStoreError, match="no key 'ann'"):
        file.revoke("ann")
    assert file.add("ann", OPERATOR, at=AT) != first


def test_concurrent_additions_are_all_stored(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=KeyFile(tmp_path).add, args=(f"key-{n}", VIEWER), kwargs={"at": AT})
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in KeyFile(tmp_path).read()} == {f"key-{n}" for n in range(20)}


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"schema": 2, "keys": []}',
    b'{"schema": 1, "keys": [{"name": "x"}]}',
    b"\xff",
]
DAMAGED += [b'{"schema": 1, "keys": [{"name": "a", "role": "root", "digest": "00", "created_at": 1}]}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_reported_and_not_overwritten(tmp_path: Path, content: bytes) -> None:
    file = KeyFile(tmp_path)
    file.path.write_bytes(content)
    with pytest.raises(KeyStoreError, match="damaged"):
        file.add("ann", OPERATOR, at=AT)
    assert file.path.read_bytes() == content


# --- the key ring -----------------------------------------------------------------------------------------


def test_the_key_ring_follows_the_file(tmp_path: Path) -> None:
    clock, file = Clock(), KeyFile(tmp_path)
    ring = KeyRing(tmp_path, clock=clock)
    assert (ring.required, ring.empty) == (False, True)
    made = file.add("ann", VIEWER, at=AT)
    clock.now += 0.5
    found = ring.find(made)
    assert found is not None
    assert (ring.required, found.name, found.role) == (True, "ann", VIEWER)
    assert ring.find(made + "x") is ring.find("") is ring.find("\udc80") is None
    file.revoke("ann")
    clock.now += 0.5
    assert ring.find(made) is None
    assert not ring.required


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_fails_closed(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock, file = Clock(), KeyFile(tmp_path)
    made = file.add("ann", OPERATOR, at=AT)
    ring = KeyRing(tmp_path, environment="from-outside", clock=clock)
    assert ring.find(made)
    file.path.write_bytes(content)
    for _ in range(5):
        clock.now += 0.5
        assert ring.required
        assert ring.find(made) is None
        assert ring.find("from-outside")
    assert len(caplog.records) == 1
    file.path.unlink()
    again = file.add("ann", OPERATOR, at=AT)
    clock.now += 0.5
    assert ring.find(again)


def test_an_unreadable_file_fails_closed(tmp_path: Path) -> None:
    (tmp_path / "keys.json").mkdir()
    ring = KeyRing(tmp_path)
    assert (ring.required, ring.empty, ring.find("x")) == (True, False, None)


def test_with_always_revoking_the_last_key_still_requires_one(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, always=True)
    assert (ring.required, ring.empty, ring.find("")) == (True, True, None)


def test_the_file_is_checked_at_most_four_times_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    ring = KeyRing(tmp_path, clock=clock)
    looks = []
    monkeypatch.setattr(ring, "_reload_if_changed", lambda _: looks.append(clock.now))
    for _ in range(1000):
        clock.now += 0.001
        ring.find("x")
    assert 4 <= len(looks) <= 5


# --- the environment ----------------------------------------------------------------------------------


def test_the_key_is_removed_from_the_environment() -> None:
    environ = {VARIABLE: "  a-key\n", "PATH": "/bin"}
    assert load_api_key(environ) == "a-key"
    assert environ == {"PATH": "/bin"}
    assert load_api_key(environ) == ""
    ring = KeyRing(environment="a-key")
    found = ring.find("a-key")
    assert found is not None
    assert (found.name, found.role) == (ENVIRONMENT, OPERATOR)


@pytest.mark.parametrize("key", ["two words", "tab\there", "schlüssel", "\x00"])
def test_a_key_that_no_header_can_carry_is_rejected(key: str) -> None:
    with pytest.raises(KeyStoreError) as caught:
        load_api_key({VARIABLE: key})
    assert key not in str(caught.value)


def test_the_key_can_be_a_systemd_credential(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load_api_key(environ) == ""
    (tmp_path / "api-key").write_text("")
    assert load_api_key(environ) == ""
    (tmp_path / "api-key").write_text("a-key\n")
    assert load_api_key(environ) == "a-key"
    assert load_api_key({**environ, VARIABLE: "another"}) == "another"
    (tmp_path / "api-key").write_text("two\nkeys\n")
    with pytest.raises(KeyStoreError, match="credential 'api-key'"):
        load_api_key(environ)
    (tmp_path / "api-key").unlink()
    (tmp_path / "api-key").mkdir()
    with pytest.raises(KeyStoreError, match="can't be read"):
        load_api_key(environ)


TAKES = """
import os, subprocess, sys
from pathlib import Path
from reconciler.auth.credentials import load_api_key
key = load_api_key()
print(key == "sm_secret-of-this-test")
print("sm_secret" in Path("/proc/self/environ").read_text())
print("sm_secret" in subprocess.run(["env"], capture_output=True, text=True).stdout)
print(Path("/proc/self/environ").read_text().count("AFTER=there"))
"""


def test_the_key_is_wiped_from_proc_environ() -> None:
    environ = {**os.environ, VARIABLE: "sm_secret-of-this-test", "AFTER": "there"}
    ran = subprocess.run(
        [sys.executable, "-c", TAKES],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert ran.stdout.split() == ["True", "False", "False", "1"], ran.stderr


# --- listening without a key -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    bind_check.check(host, keyless=True, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "fe80::1", "nowhere.invalid", ""])
def test_beyond_loopback_a_key_or_insecure_is_required(host: str) -> None:
    with pytest.raises(bind_check.UnsafeBind, match="key add"):
        bind_check.check(host, keyless=True, insecure=False)
    bind_check.check(host, keyless=False, insecure=False)
    bind_check.check(host, keyless=True, insecure=True)


def test_a_host_behind_a_proxy_counts_as_beyond_loopback(caplog: pytest.LogCaptureFixture) -> None:
    names = ("box.example.org",)
    with pytest.raises(bind_check.UnsafeBind, match="--allowed-host box"):
        bind_check.check("0.0.0.0", names, keyless=True, insecure=False)
    bind_check.check("127.0.0.1", names, keyless=True, insecure=False)
    assert "every request is refused" in caplog.text
    bind_check.check("127.0.0.1", names, keyless=False, insecure=False)
    bind_check.check("127.0.0.1", names, keyless=True, insecure=True)
    assert bind_check.serves_others("127.0.0.1", names)


@pytest.mark.parametrize(("host", "names"), [("0.0.0.0", ()), ("127.0.0.1", ("box.example.org",))])
def test_a_short_key_is_refused_where_others_can_guess_it(host: str, names: tuple[str, ...]) -> None:
    for key in ("a", "fifteen-letters"):
        with pytest.raises(bind_check.UnsafeBind, match="at least 16") as caught:
            bind_check.check(host, names, keyless=False, insecure=False, key=key)
        assert repr(key) not in str(caught.value)
    bind_check.check(host, names, keyless=False, insecure=False, key="sixteen-letters!")


def test_a_short_key_on_loopback_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    bind_check.check("127.0.0.1", keyless=False, insecure=False, key="short")
    assert "can be guessed" in caplog.text
    assert "short" not in caplog.text.replace("key is short", "")


# --- the command line -----------------------------------------------------------------------------------


def test_a_new_key_is_printed_once_alone_on_the_last_line(tmp_path: Path) -> None:
    where = ("--state-dir", str(tmp_path))
    ran = run_cli("key", "add", "ann", "--role", "operator", *where)
    assert ran.code == 0
    made = ran.out.splitlines()[-1]
    found = KeyRing(tmp_path).find(made)
    assert found is not None
    assert (found.name, found.role) == ("ann", OPERATOR)
    listed = run_cli("key", "list", *where)
    assert "ann" in listed.out
    assert "operator" in listed.out
    revoked = run_cli("key", "revoke", "ann", *where)
    assert "keys left: 0" in revoked.out
    assert "no key is left" in revoked.err
    for shown in (listed, revoked, run_cli("key", "list", "-o", "json", *where)):
        assert made not in shown.out + shown.err
        assert key_hash(made).hex() not in shown.out
    assert [(e.event.action, e.event.target) for e in read(tmp_path, Query())] == [
        ("key_add", "ann"),
        ("key_revoke", "ann"),
    ]
    assert verify(tmp_path).good
    for path in tmp_path.iterdir():
        assert made.encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_default_role_is_viewer(tmp_path: Path) -> None:
    key = json.loads(run_cli("key", "add", "eye", "-o", "json", "--state-dir", str(tmp_path)).out)
    assert (key["name"], key["role"]) == ("eye", VIEWER)
    found = KeyRing(tmp_path).find(key["key"])
    assert found is not None
    assert found.role == VIEWER


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("frob",), 64),
        (("add",), 64),
        (("revoke",), 64),
        (("list", "ann"), 64),
        (("add", "x", "--role", "root"), 64),
        (("add", "file"), 1),
        (("revoke", "nobody"), 1),
        ((), 64),
    ],
)
def test_invalid_key_commands_are_rejected(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    ran = run_cli("key", *words, "--state-dir", str(tmp_path))
    assert ran.code == code
    assert ran.err


def test_a_key_is_valid_although_the_audit_log_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "audit.db").write_bytes(b"rubbish" * 2000)
    ran = run_cli("key", "add", "ann", "--state-dir", str(tmp_path))
    assert ran.code == 0
    assert "not in the audit log" in ran.err
    assert KeyRing(tmp_path).find(ran.out.strip())
    # The daemon sets it aside, not the CLI.
    assert (tmp_path / "audit.db").read_bytes() == b"rubbish" * 2000


def test_files_that_root_creates_get_the_owner_of_their_directory(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(state, 65534, 65534)
    assert run_cli("key", "add", "ann", "--state-dir", str(state)).code == 0
    directory = state.stat()
    for file in state.iterdir():
        status = file.stat()
        assert (status.st_uid, status.st_gid) == (directory.st_uid, directory.st_gid), file
