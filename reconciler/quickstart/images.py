"""Finds the images that the stack needs and whether the engine can pull them; builds the stand-in image."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.tls import TLSConfig
from requests.exceptions import RequestException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reconciler.engine.docker.address import Address
from reconciler.quickstart.choose import registry_problem
from reconciler.quickstart.host import SetupError, install, is_debian, is_root

_REGISTRY_DEADLINE = 8
"""Seconds for the engine to look up an image; a reachable registry takes one or two."""
_ON = (True, "on", "true")


def connect(address: Address, seconds: float = 120) -> docker.DockerClient:
    """Return an SDK client for this engine; sends nothing yet."""
    tls: TLSConfig | bool = False
    if folder := address.certificates:
        tls = TLSConfig(
            client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
            ca_cert=str(folder / "ca.pem"),
            verify=address.verify,
        )
    return docker.DockerClient(base_url=address.url, tls=tls, timeout=int(seconds), version="auto")


def needed(desired_state: Path) -> list[str]:
    """Return the images of services without a build, those of groups that are on first.

    Empty if the files can't be read: the daemon reports their mistakes.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        stack = yaml.load(desired_state / "stack.yaml")
        switches = yaml.load(desired_state / "groups.yaml")["groups"]
        services: dict[str, Any] = {}
        for file in stack["compose"]:
            services.update(yaml.load(desired_state / file)["services"])
        on = [
            service
            for group, definition in stack["groups"].items()
            if _is_on(switches.get(group))
            for service in definition["services"]
        ]
    except (OSError, UnicodeError, YAMLError, KeyError, TypeError, AttributeError):
        return []
    ordered = [*on, *(service for service in services if service not in on)]
    images = [_image(services.get(service)) for service in ordered]
    return list(dict.fromkeys(image for image in images if image))


def _is_on(state: object) -> bool:
    return (state.get("state") if isinstance(state, dict) else state) in _ON


def _image(service: object) -> str:
    if not isinstance(service, dict) or "build" in service:
        return ""
    image = service.get("image")
    # Only Compose can resolve a variable.
    return image if isinstance(image, str) and "$" not in image else ""


def missing(client: docker.DockerClient, images: list[str]) -> list[str]:
    """Return the images that the engine lacks."""
    return [image for image in images if not _has(client, image)]


def _has(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


def pull_problem(address: Address, image: str) -> str:
    """Return why the engine can't pull this image; empty if it can.

    The engine itself does the lookup, since it may have its own proxy, mirrors and host names.
    """
    client = connect(address, _REGISTRY_DEADLINE)
    try:
        client.images.get_registry_data(image)
    except APIError as error:
        return registry_problem(str(error.explanation or error))
    except (DockerException, RequestException):
        return f"no answer from its registry in {_REGISTRY_DEADLINE} s"
    finally:
        client.close()
    return ""


def make_standin(client: docker.DockerClient, desired_state: Path) -> bool:
    """Build the stand-in image on this engine; True: it was missing.

    Raises:
        SetupError: there is no busybox to build it from; says what to do.
    """
    builder = _builder(desired_state / "standin" / "build_image.py")
    try:
        return bool(builder.ensure_image(client))
    except builder.NoBusybox as problem:
        if not (is_root() and is_debian()):
            raise SetupError(str(problem)) from None
    install(["busybox-static"])
    try:
        return bool(builder.ensure_image(client))
    except builder.NoBusybox as problem:
        raise SetupError(str(problem)) from None


def _builder(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("service_manager_standin", path)
    if spec is None or spec.loader is None or not path.exists():
        raise SetupError(f"{path} is missing, so there are no stand-in images; STANDIN=0 uses the real ones")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bridge_address(client: docker.DockerClient) -> str:
    """Return the address of the engine's default bridge, where containers reach this machine; or empty."""
    try:
        configs: list[Mapping[str, str]] = client.networks.get("bridge").attrs["IPAM"]["Config"] or []
    except (DockerException, KeyError, TypeError):
        return ""
    return next((config["Gateway"] for config in configs if config.get("Gateway")), "")
