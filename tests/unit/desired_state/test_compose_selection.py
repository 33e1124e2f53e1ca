"""The files that Docker Compose reads without ``-f``, compared with those that stack.yaml lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.desired_state.compose_selection import selection, selection_warnings, with_selection
from tests.support.fixtures.desired_state import a_directory, a_store

FOLDER = Path("/srv/shop")


def files(*names: str) -> tuple[Path, ...]:
    return tuple(FOLDER / name for name in names)


@pytest.mark.parametrize(
    ("present", "variables", "chosen"),
    [
        (["compose.yaml"], {}, ["compose.yaml"]),
        (["docker-compose.yaml", "docker-compose.yml"], {}, ["docker-compose.yml"]),
        (
            ["compose.yaml", "compose.override.yaml", "compose.override.yml"],
            {},
            ["compose.yaml", "compose.override.yml"],
        ),
        (["compose.yaml", "x.yaml"], {"COMPOSE_FILE": "x.yaml:compose.yaml"}, ["x.yaml", "compose.yaml"]),
        ([], {"COMPOSE_FILE": "a.yaml,b.yaml", "COMPOSE_PATH_SEPARATOR": ","}, ["a.yaml", "b.yaml"]),
        (["compose.override.yaml"], {}, []),
        (["compose.yaml"], {"COMPOSE_FILE": "oci://registry/app"}, ["compose.yaml"]),
    ],
)
def test_selection(present: list[str], variables: dict[str, str], chosen: list[str]) -> None:
    assert selection(FOLDER, variables, set(files(*present)).__contains__).files == files(*chosen)


def test_a_file_that_compose_does_not_read_is_used_alone() -> None:
    chosen = selection(FOLDER, {"COMPOSE_FILE": "a.yaml:b.yaml"}, Path.exists)
    assert with_selection(FOLDER / "b.yaml", chosen) == files("a.yaml", "b.yaml")
    assert with_selection(FOLDER / "prod.yaml", chosen) == files("prod.yaml")


@pytest.mark.parametrize(
    ("listed", "present", "variables", "warning"),
    [
        (["compose.yaml"], ["compose.yaml"], {}, ""),
        (["prod.yaml"], ["compose.yaml", "compose.override.yml"], {}, ""),
        (["compose.yaml", "more.yaml"], ["compose.yaml"], {}, ""),
        (
            ["compose.yaml"],
            ["compose.yaml", "compose.override.yml"],
            {},
            "/srv/shop/compose.override.yml is an override file, but `compose:` in stack.yaml lists",
        ),
        (
            ["compose.yaml"],
            ["compose.yaml"],
            {"COMPOSE_FILE": "compose.yaml:search.yaml"},
            "COMPOSE_FILE in /srv/shop/.env names compose.yaml, search.yaml, but",
        ),
        (["compose.yaml"], ["compose.yaml"], {"COMPOSE_ENV_FILES": "prod.env"}, "COMPOSE_ENV_FILES in .env"),
    ],
)
def test_warnings(listed: list[str], present: list[str], variables: dict[str, str], warning: str) -> None:
    found = selection_warnings(files(*listed), variables, set(files(*present)).__contains__)
    assert [text[: len(warning)] for text in found] == ([warning] if warning else [])


async def test_an_override_that_comes_and_goes_is_reported_and_is_no_source(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    override = tmp_path / "compose.override.yaml"
    first = await store.load()
    assert override in store.inputs()
    override.write_text("services: {}\n")
    second = await store.load()
    assert (first.stack.warnings, second.revision) == ((), first.revision)
    assert "compose.override.yaml is an override file" in second.stack.warnings[0]
    assert "compose.override.yaml" not in second.sources
    override.unlink()
    assert (await store.load()).stack.warnings == ()
