from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.desired_state.compose_model import services_from
from reconciler.errors import InvalidDesiredState
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Condition, Dependency, HealthCheck, Service


def resolved(services: dict[str, Any], **more: Any) -> Resolved:
    return Resolved(json.dumps({"services": services, **more}).encode(), {"a": "hash-a"}, "2.40.3")


def one(**entry: Any) -> Service:
    return services_from(resolved({"a": entry}), "p")["a"]


def test_defaults_of_compose() -> None:
    service = one(build={"context": "."})
    assert (service.container_name, service.image, service.restart) == ("p-a-1", "p-a", "no")
    assert (service.stop_grace, service.check, service.config_hash) == (10.0, None, "hash-a")
    assert service.has_build


def test_dependencies_with_all_fields() -> None:
    value = {
        "b": {"condition": "service_healthy", "required": False},
        "c": {"condition": "service_completed_successfully", "restart": True},
        "d": {},
    }
    assert one(depends_on=value).depends_on == (
        Dependency("b", Condition.HEALTHY, restart=False, required=False),
        Dependency("c", Condition.COMPLETED, restart=True, required=True),
        Dependency("d", Condition.STARTED),
    )
    assert one(depends_on=["b"]).depends_on == (Dependency("b", Condition.STARTED),)


@pytest.mark.parametrize(
    ("value", "check"),
    [
        ({"test": ["CMD", "a", "b"], "interval": "1m30s"}, HealthCheck(("a", "b"), interval=90.0)),
        ({"test": ["CMD-SHELL", "a b"], "retries": 5}, HealthCheck(("/bin/sh", "-c", "a b"), retries=5)),
        ({"test": "a b", "start_period": "1h"}, HealthCheck(("/bin/sh", "-c", "a b"), start_period=3600.0)),
        ({"test": ["NONE"]}, None),
        ({"disable": True, "test": ["CMD", "a"]}, None),
        ({"start_period": "1s"}, None),
        (None, None),
    ],
)
def test_health_checks(value: Any, check: HealthCheck | None) -> None:
    assert one(healthcheck=value).check == check


@pytest.mark.parametrize(
    ("entry", "policy"),
    [
        ({"restart": ""}, "no"),
        ({"restart": "on-failure:3"}, "on-failure:3"),
        ({"deploy": {"restart_policy": {"condition": "on-failure", "max_attempts": 4}}}, "on-failure:4"),
        ({"deploy": {"restart_policy": {"condition": "any"}}}, "always"),
        ({"deploy": {"restart_policy": {"condition": "none"}}}, "no"),
        ({"deploy": {}}, "no"),
    ],
)
def test_restart_policies(entry: dict[str, Any], policy: str) -> None:
    assert one(**entry).restart == policy


def test_networks_have_real_names() -> None:
    model = resolved({"a": {"networks": {"front": None, "back": {}}}}, networks={"front": {"name": "real"}})
    assert services_from(model, "p")["a"].networks == ("real", "back")
    shared = one(network_mode="service:b", ipc="service:c", pid="host")
    assert (shared.networks, shared.shares) == ((), ("b", "c"))


def test_ports_in_short_notation() -> None:
    ports = [
        {"target": 80, "published": "8080", "protocol": "tcp"},
        {"target": 53, "published": "53", "protocol": "udp"},
        {"target": 9},
    ]
    assert one(ports=ports).ports == ("8080:80", "53:53/udp")


def test_fields_name_differences_and_hold_no_secret() -> None:
    old = one(
        image="i", environment={"PASSWORD": "hunter2", "A": "1"}, volumes=[{"target": "/d", "source": "x"}]
    )
    new = one(
        image="i", environment={"PASSWORD": "hunter3", "A": "1"}, volumes=[{"target": "/d", "source": "y"}]
    )
    assert {path for path in old.fields if old.fields[path] != new.fields[path]} == {
        "environment.PASSWORD",
        "volumes./d",
    }
    assert old.definition != new.definition
    assert "hunter2" not in repr(old)


def test_additional_mount_renames_no_other() -> None:
    mounts = [{"target": "/b"}, {"target": "/c"}]
    old, new = one(volumes=mounts), one(volumes=[{"target": "/a"}, *mounts])
    assert set(new.fields.items()) - set(old.fields.items()) == {("volumes./a", new.fields["volumes./a"])}


@pytest.mark.parametrize(
    "entry",
    [
        {"build": {"context": "."}},
        {"pull_policy": "always"},
        {"depends_on": {"b": {}}},
        {"profiles": ["x"]},
        {"scale": 3},
        {"x-note": 1},
        {"command": None},
        {"deploy": {}},
        {"deploy": {"replicas": 2, "resources": {}}},
    ],
)
def test_fields_that_compose_does_not_hash_change_no_definition(entry: dict[str, Any]) -> None:
    assert one(image="i", **entry).definition == one(image="i").definition


def test_equal_secrets_have_different_digests() -> None:
    fields = one(environment={"A": "same", "B": "same"}).fields
    assert fields["environment.A"] != fields["environment.B"]


@pytest.mark.parametrize(
    ("entry", "replicas"),
    [
        ({}, 1),
        ({"scale": 0}, 0),
        ({"scale": 3}, 3),
        ({"deploy": {"replicas": 0}}, 0),
        ({"deploy": {"replicas": 2}}, 2),
        ({"deploy": {}, "scale": 4}, 4),
        ({"deploy": None, "scale": None}, 1),
    ],
)
def test_number_of_replicas(entry: dict[str, Any], replicas: int) -> None:
    assert services_from(resolved({"a": entry}), "p")["a"].replicas == replicas


def test_replicas_have_the_names_of_compose() -> None:
    services = services_from(resolved({"a": {"scale": 3}, "b": {"container_name": "own"}}), "p")
    assert [services["a"].name_of(number) for number in (0, 1, 2, 12)] == [
        "p-a-1",
        "p-a-1",
        "p-a-2",
        "p-a-12",
    ]
    assert services["b"].name_of(2) == "own"


def test_text_that_is_no_model_is_rejected() -> None:
    for text in (b"", b"[1]", b"{"):
        with pytest.raises(InvalidDesiredState):
            services_from(Resolved(text, {}, ""), "p")


def test_mounts_whose_content_compose_does_not_hash() -> None:
    entry = {
        "volumes": [
            {"type": "bind", "source": "/box/a", "target": "/a", "read_only": True, "bind": {}},
            {"type": "bind", "source": "/box/b", "target": "/b", "bind": {"create_host_path": True}},
            {"type": "volume", "source": "v", "target": "/v"},
        ],
        "configs": [{"source": "c"}, {"source": "inline", "target": "/etc/inline"}],
        "secrets": [{"source": "s"}, {"source": "s", "target": "/else/s"}, {"source": "env"}],
    }
    more = {
        "configs": {"c": {"file": "/box/c"}, "inline": {"content": "x"}},
        "secrets": {"s": {"file": "/box/s"}, "env": {"environment": "X"}},
    }
    service = services_from(resolved({"a": entry}, **more), "p")["a"]
    assert [(m.kind, m.target, m.source, m.create, m.writable) for m in service.mounts] == [
        ("bind", "/a", "/box/a", False, False),
        ("bind", "/b", "/box/b", True, True),
        ("config", "/c", "/box/c", False, False),
        ("config", "/etc/inline", "", False, False),
        ("secret", "/run/secrets/s", "/box/s", False, False),
        ("secret", "/else/s", "/box/s", False, False),
    ]
    more["configs"]["inline"]["content"] = "y"
    other = services_from(resolved({"a": entry}, **more), "p")["a"]
    assert other.contents != service.contents
    assert other.definition == service.definition
    assert one(volumes=[]).contents == ""


def binds(version: str, options: dict[str, dict[str, Any] | None]) -> Service:
    volumes = [
        {"type": "bind", "source": f"/box/{name}", "target": f"/{name}"}
        | ({"bind": bind} if bind is not None else {})
        for name, bind in options.items()
    ]
    text = json.dumps({"services": {"a": {"volumes": volumes}}}).encode()
    return services_from(Resolved(text, {"a": "hash"}, version), "p")["a"]


@pytest.mark.parametrize("version", ["5.0.0-rc.1", "v5.0.0", "5.5.0", "6.1.0"])
def test_defaults_of_a_bind_mount_by_version(version: str) -> None:
    """Issue 13, 5: Compose 5 writes ``bind: {}`` for a source that is created when it is missing."""
    new = binds(
        version, {"made": {}, "kept": {"create_host_path": False}, "bare": None, "z": {"selinux": "z"}}
    )
    old = binds(
        "2.40.3",
        {
            "made": {"create_host_path": True},
            "kept": {},
            "bare": None,
            "z": {"selinux": "z", "create_host_path": True},
        },
    )
    assert {m.target: m.create for m in new.mounts} == {
        "/made": True,
        "/kept": False,
        "/bare": True,
        "/z": True,
    }
    assert new.mounts == old.mounts
    assert (new.definition, new.fields) == (old.definition, old.fields)


@pytest.mark.parametrize("version", ["2.26.1", "2.30.3", "2.40.3", "2.40.3-desktop.1", ""])
def test_up_to_2_40_create_host_path_is_explicit(version: str) -> None:
    service = binds(
        version,
        {"made": {"create_host_path": True}, "kept": {}, "bare": None, "far": {"propagation": "rshared"}},
    )
    assert {m.target: m.create for m in service.mounts} == {
        "/made": True,
        "/kept": False,
        "/bare": True,
        "/far": False,
    }


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"configs": [{"source": "c", "mode": 288}]}, {"configs": [{"source": "c", "mode": "0440"}]}),
        ({"secrets": [{"source": "s", "mode": 0}]}, {"secrets": [{"source": "s", "mode": "00"}]}),
        (
            {"devices": ["/dev/a:/dev/b", "/dev/c", "/dev/d:/dev/d:r"]},
            {
                "devices": [
                    {"source": "/dev/a", "target": "/dev/b", "permissions": "rwm"},
                    {"source": "/dev/c", "target": "/dev/c", "permissions": "rwm"},
                    {"source": "/dev/d", "target": "/dev/d", "permissions": "r"},
                ]
            },
        ),
    ],
)
def test_notations_of_versions_are_one_definition(older: dict[str, Any], newer: dict[str, Any]) -> None:
    assert one(**older).definition == one(**newer).definition
    assert one(**older).fields == one(**newer).fields
