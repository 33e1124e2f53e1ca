"""Start work of the resolved model, and the digests of copied contents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.desired_state.compose_model import services_from, warnings_from
from reconciler.errors import PermanentStepFailure, StepFailed
from reconciler.model.keyed_digest import DigestKey, comparable
from reconciler.model.ledger import BuiltFrom, Mounted
from reconciler.model.observed import Container, ObservedState, State
from reconciler.model.resolved_compose import Resolved
from reconciler.model.secret_values import (
    decode_values,
    encode_values,
    variables_of,
    with_digests,
    with_values_file,
)
from reconciler.model.stack import Service
from reconciler.model.start_work import NOTHING, InjectedFile, StartWork, start_work
from reconciler.planning.mounts import changed_mounts, current_mounts, mounts_to_learn

KEY, OTHER = DigestKey(b"k" * 32), DigestKey(b"o" * 32)


def model(entry: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"services": {"web": {"image": "i", **entry}}, **more}


def service(entry: dict[str, Any], key: DigestKey | None = KEY, **more: Any) -> Service:
    values = more.pop("values", {})
    resolved = Resolved(json.dumps(model(entry, **more)).encode(), {}, "2.40.3", values=values)
    return services_from(with_digests(resolved, key), "p")["web"]


def files(entry: dict[str, Any], **more: Any) -> tuple[InjectedFile, ...]:
    whole = model(entry, **more)
    return start_work(whole["services"]["web"], whole).files


def test_a_service_without_start_work_has_the_shared_empty_value() -> None:
    assert service({}).start is NOTHING
    assert service({"configs": [{"source": "c"}]}, configs={"c": {"file": "/f"}}).start is NOTHING


def test_targets_modes_and_owners_are_those_of_compose() -> None:
    told = {
        "configs": [
            {"source": "a"},
            {"source": "a", "target": "/etc/a", "mode": "0440", "uid": "1", "gid": "2"},
        ],
        "secrets": [{"source": "s"}, {"source": "s", "target": "sub/s", "mode": 256}],
    }
    found = files(told, configs={"a": {"content": "x$$y"}}, secrets={"s": {"environment": "PW"}})
    assert [(file.target, file.mode, file.uid, file.gid) for file in found] == [
        ("/a", 0o444, "", ""),
        ("/etc/a", 0o440, "1", "2"),
        ("/run/secrets/s", 0o444, "", ""),
        ("/run/secrets/sub/s", 0o400, "", ""),
    ]
    assert [(file.content, file.variable) for file in found] == [("x$y", "")] * 2 + [("", "PW")] * 2


def test_values_are_excluded_from_every_repr() -> None:
    work = service(
        {
            "configs": [{"source": "a"}],
            "post_start": [{"command": ["echo", "planted"], "environment": {"A": "planted"}}],
        },
        configs={"a": {"content": "planted"}},
    ).start
    assert work.files and work.post_start
    assert "planted" not in repr(work)
    assert "kkkk" not in repr(KEY)


def test_all_fields_of_hooks_are_read() -> None:
    hook = {
        "command": ["sh", "-c", "echo $$A"],
        "user": "root",
        "privileged": True,
        "working_dir": "/tmp",
        "environment": {"A": "1", "B": None, "C": "$$x"},
    }
    (found,) = service({"pre_stop": [hook]}).start.pre_stop
    assert found.command == ("sh", "-c", "echo $A")
    assert (found.user, found.privileged, found.working_dir) == ("root", True, "/tmp")
    assert found.environment == {"A": "1", "B": None, "C": "$x"}


def test_a_changed_value_changes_the_contents_but_not_the_definition() -> None:
    told: dict[str, Any] = {"secrets": [{"source": "s"}]}
    secrets = {"s": {"environment": "PW"}}
    one = service(told, secrets=secrets, values={"secret s": "one"})
    two = service(told, secrets=secrets, values={"secret s": "two"})
    unset = service(told, secrets=secrets, values={"secret s": None})
    assert len({one.contents, two.contents, unset.contents}) == 3
    assert one.definition == two.definition == unset.definition
    assert one == service(told, secrets=secrets, values={"secret s": "one"})


def test_a_digest_can_not_be_guessed_without_the_key() -> None:
    told: dict[str, Any] = {"configs": [{"source": "c"}]}
    mine = service(told, configs={"c": {"content": "guess"}}).mounts[0].content
    theirs = service(told, OTHER, configs={"c": {"content": "guess"}}).mounts[0].content
    assert mine != theirs
    assert not comparable(mine, theirs)


CONFIG: dict[str, Any] = {"configs": [{"source": "c", "target": "/etc/c"}]}
HELLO, GOODBYE = {"c": {"content": "hello"}}, {"c": {"content": "goodbye"}}
CONTAINER = Container(id="1", name="web", service="web", state=State.RUNNING)


def made_with(of: Service) -> BuiltFrom:
    return BuiltFrom(of.definition, of.fields, "", mounts=current_mounts(of, ObservedState()))


def test_a_changed_content_is_a_changed_mount() -> None:
    made = made_with(service(CONFIG, configs=HELLO))
    assert changed_mounts(service(CONFIG, configs=HELLO), CONTAINER, ObservedState(), made) == ()
    assert changed_mounts(service(CONFIG, configs=GOODBYE), CONTAINER, ObservedState(), made) == ("/etc/c",)


def test_a_lost_key_recreates_nothing_and_is_recorded_again() -> None:
    made = made_with(service(CONFIG, OTHER, configs=HELLO))
    now = service(CONFIG, configs=HELLO)
    assert changed_mounts(now, CONTAINER, ObservedState(), made) == ()
    learned = mounts_to_learn(now, ObservedState(), made)
    assert learned == current_mounts(now, ObservedState())
    assert mounts_to_learn(now, ObservedState(), made_with(now)) == {}


def test_a_record_from_before_keyed_digests_is_still_compared() -> None:
    before = service(CONFIG, None, configs=HELLO)
    assert changed_mounts(service(CONFIG, configs=HELLO), CONTAINER, ObservedState(), made_with(before)) == ()
    changed = service(CONFIG, configs=GOODBYE)
    assert changed_mounts(changed, CONTAINER, ObservedState(), made_with(before)) == ("/etc/c",)
    assert mounts_to_learn(changed, ObservedState(), made_with(before)) == {}
    learned = mounts_to_learn(service(CONFIG, configs=HELLO), ObservedState(), made_with(before))
    assert learned == {"content of /etc/c": Mounted("content", KEY.digest("config c", "hello"))}


def test_variables_are_named_by_kind_and_name() -> None:
    whole = model(
        {}, configs={"a": {"environment": "A"}, "b": {"content": "x"}}, secrets={"a": {"environment": "B"}}
    )
    assert variables_of(whole) == {"config a": "A", "secret a": "B"}


def test_frozen_values_are_restored_and_their_name_is_salted() -> None:
    values = {"secret a": "1", "secret b": None}
    assert decode_values(encode_values(values, KEY)) == values
    assert encode_values(values, KEY) == encode_values(dict(reversed(values.items())), KEY)
    assert encode_values(values, KEY) != encode_values(values, OTHER)
    with pytest.raises(ValueError, match="no values"):
        decode_values(b"[]")


def test_a_model_that_names_its_values_has_the_same_meaning() -> None:
    text = json.dumps(model(CONFIG, configs=HELLO)).encode()
    pointing = with_values_file(text, "../contents/1")
    assert services_from(Resolved(text, {}, ""), "p") == services_from(Resolved(pointing, {}, ""), "p")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"secrets": [{"source": "s"}]}, "variable PW is not set"),
        ({"configs": [{"source": "c"}], "read_only": True}, "read-only"),
        ({"use_api_socket": True, "read_only": True}, "read-only"),
        (
            {"configs": [{"source": "c", "target": "/run/c"}], "tmpfs": ["/run:size=1m"]},
            "tmpfs at /run hides",
        ),
        (
            {"configs": [{"source": "c", "target": "/t/c"}], "volumes": [{"type": "tmpfs", "target": "/t"}]},
            "tmpfs at /t hides",
        ),
    ],
)
def test_start_work_that_will_fail_is_a_warning(entry: dict[str, Any], expected: str) -> None:
    whole = model(entry, configs=HELLO, secrets={"s": {"environment": "PW"}})
    resolved = Resolved(json.dumps(whole).encode(), {}, "", values={"secret s": None})
    (warning,) = warnings_from(resolved)
    assert expected in warning
    assert warning.startswith("web: ")


def test_the_end_of_an_output_is_kept_in_whole_lines() -> None:
    import struct

    from reconciler.engine.docker.start.exec import Tail

    def frame(stream: int, content: bytes) -> bytes:
        return struct.pack(">BxxxL", stream, len(content)) + content

    tail = Tail()
    output = frame(1, b"first\n" + b"x" * 3000 + b"\n") + frame(1, b"old\rnew\nlast\n")
    for start in range(0, len(output), 7):
        tail.feed(output[start : start + 7])
    assert tail.text() == "new\nlast"
    tail.feed(frame(2, b"y" * 3000))
    assert tail.text() == "new\nlast"
    tail.feed(frame(2, b"\nwhat is wrong\n"))
    assert tail.text() == "what is wrong"


def test_an_archive_holds_the_file_as_compose_writes_it() -> None:
    import io
    import tarfile

    from reconciler.engine.docker.start.inject import archive

    file = InjectedFile(kind="config", source="c", target="/etc/ü.conf", mode=0o640, uid="7", gid="8")
    with tarfile.open(fileobj=io.BytesIO(archive(file, "grüße\n", 5.0))) as tar:
        (entry,) = tar.getmembers()
        assert (entry.name, entry.mode, entry.uid, entry.gid, entry.mtime) == ("/etc/ü.conf", 0o640, 7, 8, 5)
        found = tar.extractfile(entry)
        assert found is not None
        assert found.read().decode() == "grüße\n"
    with pytest.raises(PermanentStepFailure, match="not a number"):
        archive(InjectedFile(kind="config", source="c", target="/c", uid="root"), "x", 5.0)


async def test_an_owner_is_kept_if_the_engine_does_not_know_the_container_user() -> None:
    from reconciler.engine.docker.http import Refused
    from reconciler.engine.docker.start.definition import Definition
    from reconciler.engine.docker.start.inject import Injector

    class Wire:
        def __init__(self, refusal: str) -> None:
            self.refusal = refusal
            self.options: list[object] = []

        async def put(self, path: str, content: bytes, /, **query: object) -> None:
            self.options.append(query["copyUIDGID"])
            if query["copyUIDGID"]:
                raise Refused(500, self.refusal)

    async def credentials() -> str:
        return ""

    file = InjectedFile(kind="config", source="c", target="/c", content="x", uid="1000")
    definition = Definition(StartWork(files=(file,)))
    wire = Wire('getent unable to find entry "1000:1000" in passwd database')
    await Injector(wire, credentials).inject("id", "web", definition)  # type: ignore[arg-type]
    assert wire.options == [True, False]

    wire = Wire("no space left on device")
    with pytest.raises(StepFailed, match="no space left"):
        await Injector(wire, credentials).inject("id", "web", definition)  # type: ignore[arg-type]
    assert wire.options == [True]
