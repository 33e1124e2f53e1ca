"""Services that share a container name, in the model that Compose reads."""

from __future__ import annotations

import json

from reconciler.engine.compose.alternatives import always_clash, name_is_shared, with_unique_names

MODEL = {
    "services": {
        "cpu": {"container_name": "llm", "profiles": ["cpu"]},
        "gpu": {"container_name": "llm", "profiles": ["gpu"]},
        "db": {"container_name": "db"},
        "web": None,
    }
}


def names(text: bytes) -> dict[str, str | None]:
    return {name: (entry or {}).get("container_name") for name, entry in json.loads(text)["services"].items()}


def test_the_message_of_compose() -> None:
    assert name_is_shared('services.gpu: container name "llm" is already in use by service {}"')
    assert not name_is_shared('service "web" refers to undefined network front')


def test_a_name_stays_with_the_service_that_is_created() -> None:
    text = json.dumps(MODEL).encode()
    assert names(with_unique_names(text)) == {"cpu": "llm", "gpu": None, "db": "db", "web": None}
    assert names(with_unique_names(text, ["gpu"])) == {"cpu": None, "gpu": "llm", "db": "db", "web": None}


def test_a_model_without_shared_names_and_nonsense_stay_as_they_are() -> None:
    for text in (b'{"services": {"a": {"container_name": "x"}}}', b"{", b"[]", b'{"services": [1]}'):
        assert with_unique_names(text) is text


def test_services_without_profiles_are_no_alternatives() -> None:
    plain = {"services": {"a": {"container_name": "x"}, "b": {"container_name": "x"}}}
    assert "a and b have the same container_name x" in always_clash(plain)
    assert always_clash(MODEL) == ""
