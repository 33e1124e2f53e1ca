from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.desired_state import compose_inputs
from reconciler.desired_state.compose_inputs import compose_input_files
from reconciler.host.yaml_positions import parse_document


def input_names(
    tmp_path: Path, first: str = "compose.yaml", environment: dict[str, str] | None = None
) -> set[str]:
    def read(path: Path) -> bytes | None:
        return path.read_bytes() if path.is_file() else None

    return {
        str(p.relative_to(tmp_path)) for p in compose_input_files(read, [tmp_path / first], environment or {})
    }


def test_notations_of_env_files(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  a: {env_file: a.env}\n"
        "  b: {env_file: [b.env, {path: c.env, required: false}], label_file: l.env}\n"
    )
    assert input_names(tmp_path) == {"compose.yaml", ".env", "a.env", "b.env", "c.env", "l.env"}


def test_included_and_extended_files(tmp_path: Path) -> None:
    for folder in ("x", "y", "z"):
        (tmp_path / folder).mkdir()
    (tmp_path / "compose.yaml").write_text(
        "include:\n"
        "  - x/compose.yaml\n"
        "  - {path: [y/one.yaml], project_directory: z, env_file: y.env}\n"
        "  - https://example.com/far.yaml\n"
        "services: {a: {extends: {file: x/base.yaml, service: b}}, c: {extends: a}}\n"
    )
    (tmp_path / "x/compose.yaml").write_text("services: {q: {env_file: q.env}}")
    (tmp_path / "x/base.yaml").write_text("services: {b: {env_file: b.env, extends: {file: deeper.yaml}}}")
    (tmp_path / "y/one.yaml").write_text("services: {r: {env_file: r.env}}")
    assert input_names(tmp_path) == {
        "compose.yaml", ".env", "x/compose.yaml", "x/.env", "x/q.env", "x/base.yaml", "x/b.env",
        "x/deeper.yaml", "y/one.yaml", "y.env", "z/r.env",
    }  # fmt: skip


def test_names_with_variables(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# A=no\nexport A='one'\nEMPTY=\nB=two # why\n")
    (tmp_path / "compose.yaml").write_text(
        "services: {a: {env_file: ["
        "'${A}.env', '$B.env', '${EMPTY:-three}.env', '${EMPTY-x}4.env', '${NO:+x}5.env', '${A:+6}.env',"
        " '$$7.env', '${GIVEN}.env']}}"
    )
    assert input_names(tmp_path, environment={"GIVEN": "8", "B": "2"}) == {
        "compose.yaml", ".env", "one.env", "2.env", "three.env", "4.env", "5.env", "6.env", "$7.env", "8.env",
    }  # fmt: skip


def test_pwd_is_the_folder_of_the_first_file(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {env_file: ['${PWD}/a.env', '${PWD:-/x}/b.env']}}")
    assert input_names(tmp_path, environment={"PWD": "/elsewhere"}) == {
        "compose.yaml",
        ".env",
        "a.env",
        "b.env",
    }


def test_file_that_includes_itself(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "include: [compose.yaml]\nservices: {a: {extends: {file: compose.yaml}}}"
    )
    assert input_names(tmp_path) == {"compose.yaml", ".env"}


def test_each_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr(
        compose_inputs,
        "parse_document",
        lambda _, content, **how: parsed.append(content) or parse_document("", content, **how),
    )
    names = [f"part{number}.yaml" for number in range(40)]
    for name in names:
        (tmp_path / name).write_text(f"services: {{s: {{env_file: {name}.env}}}}")
    (tmp_path / "compose.yaml").write_text(f"include: [{', '.join(names)}]")
    for _ in range(3):
        assert {f"{name}.env" for name in names} < input_names(tmp_path)
    assert len(parsed) == 41


def test_broken_file_is_left_to_compose(tmp_path: Path) -> None:
    for text in ("{", "[1]", "services: 3", "services: {a: 3}", "include: 3", "\xff"):
        (tmp_path / "compose.yaml").write_text(text)
        assert input_names(tmp_path) >= {"compose.yaml", ".env"}


def test_no_files_have_no_inputs() -> None:
    assert compose_input_files(lambda _: None, [], {}) == ()
