"""Every module is in a layer, every library is allowed by name, folders stay small and have a docstring."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_MODULES = 20

LIBRARIES = {
    "click": {"reconciler.cli"},
    "docker": {"reconciler.engine.docker", "reconciler.quickstart"},
    "fastapi": {"api"},
    "h11": {"reconciler.daemon"},
    "httptools": {"reconciler.daemon"},
    "prometheus_client": {"api"},
    "pydantic": {
        "api",
        "reconciler.controller",
        "reconciler.desired_state",
        "reconciler.generations",
        "reconciler.host.stored_json",
    },
    "pydantic_core": {"reconciler.desired_state", "reconciler.host.stored_json"},
    "rich": {"reconciler.cli"},
    "requests": {"reconciler.engine.docker", "reconciler.quickstart"},
    "ruamel": {
        "reconciler.host.yaml_positions",
        "reconciler.desired_state",
        "reconciler.engine.compose",
        "reconciler.quickstart",
    },
    "sqlite3": {"reconciler.audit"},
    "starlette": {"api", "reconciler.daemon"},
    "tenacity": {"reconciler.engine.docker"},
    "uvicorn": {"reconciler.daemon"},
    "watchfiles": {"reconciler.desired_state.file_watch"},
}
"""Which package or module may import which library."""


def modules(*tops: str) -> Iterator[tuple[str, Path]]:
    for top in tops:
        for path in sorted((ROOT / top).rglob("*.py")):
            if "vendor" not in path.parts:
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def layers() -> list[set[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(contract for contract in settings["contracts"] if contract["type"] == "layers")
    return [{name.strip() for name in layer.split("|")} for layer in contract["layers"]]


def test_every_module_lies_in_exactly_one_layer() -> None:
    for module, _ in modules("reconciler", "api"):
        found = [layer for layer in layers() if within(module, layer)]
        assert len(found) == (module != "reconciler"), module  # the root package holds the version


def test_no_package_imports_itself_through_another() -> None:
    """The layers are an order, so that it is enough that each import goes down."""
    order = {package: level for level, layer in enumerate(layers()) for package in layer}

    def package(module: str) -> str | None:
        return next((name for name in order if within(module, {name})), None)

    for module, path in modules("reconciler", "api"):
        for name in imports(path):
            above, below = package(module), package(name)
            if above and below and above != below:
                assert order[above] < order[below], f"{module} imports {name}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_only_the_named_packages_import_a_library(library: str) -> None:
    users = {
        module
        for module, path in modules("reconciler", "api")
        if library in {n.split(".")[0] for n in imports(path)}
    }
    assert {module for module in users if not within(module, LIBRARIES[library])} == set()


def test_every_library_is_allowed_by_name() -> None:
    used = {name.split(".")[0] for _, path in modules("reconciler", "api") for name in imports(path)}
    assert {name for name in used if name not in sys.stdlib_module_names} - {"reconciler", "api"} <= {
        *LIBRARIES
    }


def test_no_folder_holds_more_modules_than_a_reader_can_keep_in_mind() -> None:
    sizes = Counter(
        path.parent for _, path in modules("reconciler", "api", "tests") if path.name != "__init__.py"
    )
    assert {str(folder): size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_every_package_says_what_it_holds() -> None:
    for module, path in modules("reconciler", "api"):
        if path.name == "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text()))
            assert text, module


def test_wheel_has_every_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [
        file.parent.relative_to(ROOT)
        for base in ("reconciler", "api")
        for file in (ROOT / base).rglob("__init__.py")
        if "quickstart" not in file.parts
    ]
    data = {"reconciler.shipped_desired_state", "reconciler.shipped_dashboard"}
    assert sorted(set(declared) - data) == sorted(".".join(folder.parts) for folder in folders)
