"""Compose's errors, for people: the line at fault, the variable that is not set, what to do.

Runs Docker Compose on files of one mistake each.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.engine.compose.error_advice import advised, unset_variables, with_unset
from reconciler.engine.compose.resolve import resolve
from reconciler.errors import InvalidDesiredState, Mistake

SERVICE = "services:\n  web:\n    image: a\n"


async def mistake_in(folder: Path, text: str) -> Mistake:
    (folder / "compose.yaml").write_text(text)
    with pytest.raises(InvalidDesiredState) as caught:
        await resolve([folder / "compose.yaml"], folder, "shop")
    return caught.value.mistakes[0]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (f"{SERVICE}    mem_limit: lots\n", 4, "invalid size: 'lots'"),
        (f"{SERVICE}    healthcheck: {{test: [CMD, x],\n      interval: soon}}\n", 5, 'duration "soon"'),
        (f'{SERVICE}    command: "${{"\n', 4, "invalid interpolation format"),
        ('services:\n  "we b":\n    image: a\n', 2, "'we b' not allowed"),
        (f'{SERVICE}    ports:\n      - "80:80"\n      - "80:abc"\n', 6, "invalid containerPort: abc"),
        (f'{SERVICE}    ports:\n      - "abc:80"\n', 5, "invalid hostPort: abc"),
        (f'{SERVICE}    ports:\n      - "80-90:80-85"\n', 5, "invalid ranges"),
        (f"{SERVICE}    restart: sometimes\n", 4, "'sometimes': expected no, always"),
        (f"{SERVICE}    restart: on-failure:x\n", 4, "'on-failure:x': expected"),
        (f"{SERVICE}    ports: 80\n", 4, "must be a array"),
        (f"{SERVICE}    image: b\n", 4, 'mapping key "image" already defined'),
        (f"{SERVICE}    env_file: [no.env]\n", 4, "no.env not found"),
        (f"{SERVICE}    label_file: no.labels\n", 4, "no.labels not found"),
        ("services:\n  web:\n    restart: always\n", 2, "neither an image nor a build context"),
        ("services:\n  - web\n", 2, "services must be a mapping"),
        ("services:\n  web:\n    image: ${NOWHERE:?must be set}\n", 3, "variable NOWHERE is missing a value"),
        ("services:\n  web:\n\timage: a\n", 3, "cannot start any token"),
        (f"{SERVICE}service:\n  x: 1\n", 4, "'service' not allowed"),
        (f"{SERVICE}    depends_on: [db]\n", 4, 'undefined service "db"'),
        (f"{SERVICE}    networks: [front]\n", 4, "undefined network front"),
        (f"{SERVICE}    secrets: [pw]\n", 4, "undefined secret pw"),
        (f"{SERVICE}    volumes:\n      - data:/x\n", 5, "undefined volume data"),
        (f"{SERVICE}    comand: x\n", 4, "'comand' not allowed"),
        ("services:\n  web:\n    <<: *nope\n", 3, "unknown anchor 'nope'"),
        (f"{SERVICE}    mem_limit: ${{MEMORY}}x\n", 4, "(not set: the variable MEMORY)"),
    ],
)
async def test_the_line_at_fault_is_named(tmp_path: Path, text: str, line: int, message: str) -> None:
    mistake = await mistake_in(tmp_path, text)
    assert (mistake.path, mistake.line) == (str(tmp_path / "compose.yaml"), line)
    assert message in mistake.message


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "services:\n", "services: {}\n", "networks: {proxy: {}}\n", "x-a: 1\n"]
)
async def test_a_file_without_services_says_so(tmp_path: Path, text: str) -> None:
    assert "no services: add at least one below `services:`" in (await mistake_in(tmp_path, text)).message


async def test_a_folder_that_gives_no_project_name(tmp_path: Path) -> None:
    folder = tmp_path / "мой стек"
    folder.mkdir()
    (folder / "compose.yaml").write_text(SERVICE)
    with pytest.raises(InvalidDesiredState, match="add a line `name: shop`"):
        await resolve([folder / "compose.yaml"], folder, "")
    (folder / ".env").write_text("COMPOSE_PROJECT_NAME=My Stack\n")
    with pytest.raises(InvalidDesiredState, match=r'"My Stack".* or COMPOSE_PROJECT_NAME in \.env'):
        await resolve([folder / "compose.yaml"], folder, "")


def test_variables_that_concern_another_line_are_left_out() -> None:
    lines = ['time="t" level=warning msg="The \\"A\\" variable is not set. Defaulting to a blank string."']
    assert unset_variables(lines * 2) == ("A",)
    assert with_unset("wrong", ("A", "B"), "x${B:-}") == "wrong (not set: the variable B)"
    assert with_unset("wrong", ("A",), "$AB") == "wrong"
    assert with_unset("wrong", ("A", "B"), "") == "wrong (not set: the variables A, B)"
    assert advised("something else") == "something else"


async def test_models_of_services_are_kept(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        f"{SERVICE}    models: [llm]\nmodels:\n  llm: {{model: ai/gemma, context_size: 8000}}\n"
    )
    resolved = await resolve([tmp_path / "compose.yaml"], tmp_path, "shop")
    assert json.loads(resolved.text)["models"]["llm"] == {"model": "ai/gemma", "context_size": 8000}
    assert list(resolved.hashes) == ["web"]
