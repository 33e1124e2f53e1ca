"""`make clean`: removes what `make run` created on engines, and its files in `.run/`; nothing else.

On the user's own engine: the containers of this checkout (Compose labels each with project and directory),
the networks that only they used, the stand-in images. Volumes stay, since they may hold data. Pulled images
stay, since other projects may use them. A private engine is removed with everything in it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reconciler.engine.docker.address import Address, find_address
from reconciler.engine.docker.identity import made_by_compose, set_at_creation
from reconciler.quickstart import record as records
from reconciler.quickstart.engine import PrivateEngine, destroy, locate, ping, start
from reconciler.quickstart.host import SetupError, is_root, process_arguments, report
from reconciler.quickstart.images import connect

PROJECT = "com.docker.compose.project"
WORKING_DIR = "com.docker.compose.project.working_dir"
STANDIN_LABEL = "service-manager.standin.digest"
_STOP_TIMEOUT = 20.0
_PARALLEL_REMOVALS = 8


def remove_all(root: Path, run: Path) -> None:
    """Remove everything that `make run` of this checkout created except the environment.

    Raises:
        SetupError: something can't be removed; running it again continues.
    """
    record = records.read(run)
    _stop_daemon(record.daemon_pid, root)
    private = locate(run / "engine")
    desired_state = root / "desired-state"
    names = [url for url in record.engines if url not in {private.url, "simulated"}]
    addresses = {url: Address(url, _path(record.certificates.get(url))) for url in names}
    current = find_address(os.environ)
    if current.url and current.url != private.url and not current.problem:
        addresses.setdefault(current.url, current)
    for url, address in addresses.items():
        _clean_engine(address, desired_state, known=url in record.engines)
    if private.folder.exists():
        _clean_private(private)
    shutil.rmtree(run, ignore_errors=True)
    if run.exists():
        raise SetupError(f"{run} could not be removed; try as root: sudo make clean")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _stop_daemon(pid: int, root: Path) -> None:
    """Stop the daemon, which would recreate what is removed."""
    if not _is_ours(pid, root):
        return
    report(f"Stopping the daemon (pid {pid}).")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT
    while time.monotonic() < deadline:
        if not _is_ours(pid, root):
            return
        time.sleep(0.1)
    raise SetupError(f"The daemon (pid {pid}) does not stop; nothing was removed")


def _is_ours(pid: int, root: Path) -> bool:
    arguments = process_arguments(pid) if pid else []
    return "reconciler" in arguments and str(root / "desired-state") in arguments


def _project(desired_state: Path) -> str:
    try:
        return str(YAML(typ="safe", pure=True).load(desired_state / "stack.yaml")["name"])
    except (OSError, UnicodeError, YAMLError, KeyError, TypeError):
        return "alpr"


def _clean_engine(address: Address, desired_state: Path, *, known: bool) -> None:
    """`known`: the stack ran there by the record; then its network is removed even without containers."""
    client = None
    try:
        client = connect(address)
        containers, networks, volumes, images = _remove(client, desired_state, known=known)
    except (DockerException, RequestException) as error:
        if known:
            report(f"{address.url} does not answer, so its containers stay: {error}")
        return
    finally:
        if client:
            client.close()
    if containers or networks or images:
        report(
            f"{address.url}: removed {containers} containers, {networks} networks, {images} stand-in images."
        )
    if volumes and (containers or known):
        report("Volumes stay, since they may hold data. To remove them too:")
        host = "" if address.url == find_address({}).url else f"-H {shlex.quote(address.url)} "
        report(f"  docker {host}volume rm {' '.join(map(shlex.quote, volumes))}")


def _remove(
    client: docker.DockerClient, desired_state: Path, *, known: bool
) -> tuple[int, int, list[str], int]:
    project = _project(desired_state)
    labels = {PROJECT: project, WORKING_DIR: str(desired_state)}
    containers = client.api.containers(all=True)
    own = [one for one in containers if labels.items() <= one["Labels"].items() and _is_own(client, one)]
    others = [one for one in containers if one not in own]
    mounted = {mount["Name"] for one in own for mount in one["Mounts"] if mount["Type"] == "volume"}
    with ThreadPoolExecutor(_PARALLEL_REMOVALS) as pool:
        list(pool.map(lambda one: _remove_container(client, one), own))
    # A network is labelled with the project, not with a directory. It is removed if containers of this
    # checkout were in it, or if no other checkout of the project has any; never while others use it.
    alone = known and not any(one["Labels"].get(PROJECT) == project for one in others)
    joined, needed = _networks_of(own), _networks_of(others)
    networks = sum(
        _remove_network(client, network)
        for network in client.api.networks(filters={"label": [f"{PROJECT}={project}"]})
        if (alone or network["Name"] in joined) and network["Name"] not in needed
    )
    made = {volume["Name"] for volume in _volumes(client, project)}
    images = sum(_remove_image(client, image) for image in _standins(client)) if own or known else 0
    return len(own), networks, sorted(mounted | made if known else mounted), images


def _is_own(client: docker.DockerClient, container: dict[str, Any]) -> bool:
    """Whether its labels were set at its creation, not copied into its image by `docker commit`."""
    labels, image = container["Labels"], container["ImageID"]
    if made_by_compose(labels, image):
        return True
    try:
        seen = client.api.inspect_image(image)  # type: ignore[no-untyped-call]
    except APIError:
        return False
    return set_at_creation(labels, seen["Config"].get("Labels") or {})


def _networks_of(containers: list[dict[str, Any]]) -> set[str]:
    return {name for one in containers for name in one["NetworkSettings"]["Networks"]}


def _remove_container(client: docker.DockerClient, container: dict[str, Any]) -> None:
    # Stop it within its grace period first: the volume of a database stays and must be consistent.
    with contextlib.suppress(NotFound):
        if container["State"] in {"running", "restarting"}:
            client.api.stop(container["Id"])
        client.api.remove_container(container["Id"], force=True)


def _remove_network(client: docker.DockerClient, network: dict[str, Any]) -> bool:
    try:
        client.api.remove_network(network["Id"])
    except APIError:
        return False  # a container has just joined it
    return True


def _volumes(client: docker.DockerClient, project: str) -> list[dict[str, Any]]:
    return client.api.volumes(filters={"label": [f"{PROJECT}={project}"]})["Volumes"] or []


def _standins(client: docker.DockerClient) -> list[dict[str, Any]]:
    """Return the stand-in image and those built from it, which inherit its label."""
    return list(client.api.images(filters={"label": [STANDIN_LABEL]}))


def _remove_image(client: docker.DockerClient, image: dict[str, Any]) -> bool:
    # By name and without force: the engine then refuses while any container uses it.
    gone = False
    for name in image.get("RepoTags") or [image["Id"]]:
        with contextlib.suppress(APIError):
            client.api.remove_image(name)
            gone = True
    return gone


def _clean_private(engine: PrivateEngine) -> None:
    if not is_root():
        raise SetupError("The private engine was started by root: sudo make clean")
    report("Removing the private engine, its containers, volumes and images.")
    # A stopped engine can't remove its networks, and their bridges would stay until the next boot.
    with contextlib.suppress(SetupError):
        start(engine)
    if ping(engine.socket):
        with contextlib.suppress(DockerException, RequestException):
            _empty(engine)
    destroy(engine)


def _empty(engine: PrivateEngine) -> None:
    client = connect(Address(engine.url))
    try:
        for container in client.api.containers(all=True):
            with contextlib.suppress(APIError):
                client.api.remove_container(container["Id"], force=True, v=True)
        client.networks.prune()
    finally:
        client.close()
