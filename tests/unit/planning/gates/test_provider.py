"""Services that a provider gives: no container, no image, and a reason for what depends on them."""

from __future__ import annotations

import json

from reconciler.desired_state.compose_model import services_from, warnings_from
from reconciler.model.observed import State
from reconciler.model.resolved_compose import Resolved
from tests.support.fixtures.builders import a_stack, container, desire, look, planned, service

DB = service("db", provider="cloud-db", image="")
WEB = service("web", "db")
STACK = a_stack({"core": [DB, WEB]})


def test_a_provided_service_is_blocked_by_name_and_what_depends_on_it_says_why() -> None:
    seen = look(STACK, container(WEB, State.EXITED))
    assert str(planned(STACK, desire(STACK, "core"), seen)).splitlines() == [
        "db: blocked (provider_unsupported: db is given by the provider cloud-db, "
        "which only Docker Compose runs)",
        "web: waits (dependency_not_ready: waits for db, given by the provider cloud-db, "
        "which only Docker Compose runs)",
    ]


def test_a_container_that_compose_started_keeps_running() -> None:
    assert "web:" not in str(planned(STACK, desire(STACK, "core"), look(STACK, container(WEB))))


def test_warnings_name_providers_and_models() -> None:
    model = {
        "services": {
            "db": {"provider": {"type": "cloud-db"}},
            "web": {"image": "a", "depends_on": {"db": {"condition": "service_started"}}},
            "chat": {"image": "b", "models": {"llm": None}},
        }
    }
    resolved = Resolved(json.dumps(model).encode(), {}, "2.40.3")
    provider, models = warnings_from(resolved)
    assert provider.startswith("db: is given by the provider cloud-db, which only Docker Compose runs")
    assert "(web)" in provider
    assert models.startswith("chat: uses models: (llm)")
    assert (services_from(resolved, "x")["db"].provider, services_from(resolved, "x")["db"].image) == (
        "cloud-db",
        "",
    )
