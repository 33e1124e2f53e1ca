"""`make clean`: takes away what `make run` made on engines, and its files in `.run/`; nothing else.

On an engine of the user's: this checkout's containers (Compose writes project and directory on each), the
networks that only they were in, the stand-in images. Volumes stay there, since they may hold data that
somebody wants, and so do images that were pulled, which others may use. A private engine goes with all.
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
from reconciler.quickstart.host import Unprepared, arguments_of, is_root, say
from reconciler.quickstart.images import connect

PROJECT = "com.docker.compose.project"
WORKING_DIR = "com.docker.compose.project.working_dir"
STANDIN_LABEL = "service-manager.standin.digest"
_DAEMON_ENDS_WITHIN = 20.0
_AT_ONCE = 8


def remove_all(root: Path, run: Path) -> None:
    """All that `make run` of this checkout made, but for the environment.

    Raises:
        Unprepared: it can't be done; nothing is left half removed that a second try would not find.
    """
    record = records.read(run)
    _end_daemon(record.daemon_pid, root)
    private = locate(run / "engine")
    desired_state = root / "desired-state"
    names = [url for url in record.engines if url not in {private.url, "simulated"}]
    addresses = {url: Address(url, _path(record.certificates.get(url))) for url in names}
    here = find_address(os.environ)
    if here.url and here.url != private.url and not here.problem:
        addresses.setdefault(here.url, here)
    for url, address in addresses.items():
        _clean_engine(address, desired_state, known=url in record.engines)
    if private.folder.exists():
        _clean_private(private)
    shutil.rmtree(run, ignore_errors=True)
    if run.exists():
        raise Unprepared(f"{run} could not be removed; it may need root: sudo make clean")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _end_daemon(pid: int, root: Path) -> None:
    """A daemon of ours would put back what is taken away."""
    if not _is_ours(pid, root):
        return
    say(f"Ending the daemon (pid {pid}).")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DAEMON_ENDS_WITHIN
    while time.monotonic() < deadline:
        if not _is_ours(pid, root):
            return
        time.sleep(0.1)
    raise Unprepared(f"The daemon (pid {pid}) does not end; nothing was removed")


def _is_ours(pid: int, root: Path) -> bool:
    said = arguments_of(pid) if pid else []
    return "reconciler" in said and str(root / "desired-state") in said


def _project(desired_state: Path) -> str:
    try:
        return str(YAML(typ="safe", pure=True).load(desired_state / "stack.yaml")["name"])
    except (OSError, UnicodeError, YAMLError, KeyError, TypeError):
        return "alpr"


def _clean_engine(address: Address, desired_state: Path, *, known: bool) -> None:
    """`known`: by our own record this stack ran there, so its network is ours though no container is left."""
    client = None
    try:
        client = connect(address)
        containers, networks, volumes, images = _remove(client, desired_state, known=known)
    except (DockerException, RequestException) as error:
        if known:
            say(f"{address.url} does not answer, so what is there stays: {error}")
        return
    finally:
        if client:
            client.close()
    if containers or networks or images:
        say(f"{address.url}: removed {containers} containers, {networks} networks, {images} stand-in images.")
    if volumes and (containers or known):
        say("Volumes stay, as they may hold data. To remove them too:")
        host = "" if address.url == find_address({}).url else f"-H {shlex.quote(address.url)} "
        say(f"  docker {host}volume rm {' '.join(map(shlex.quote, volumes))}")


def _remove(
    client: docker.DockerClient, desired_state: Path, *, known: bool
) -> tuple[int, int, list[str], int]:
    project = _project(desired_state)
    labels = {PROJECT: project, WORKING_DIR: str(desired_state)}
    everybody = client.api.containers(all=True)
    ours = [one for one in everybody if labels.items() <= one["Labels"].items() and _is_own(client, one)]
    others = [one for one in everybody if one not in ours]
    mounted = {mount["Name"] for one in ours for mount in one["Mounts"] if mount["Type"] == "volume"}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda one: _remove_container(client, one), ours))
    # The project's network has no mark of a directory. It is ours if our containers were in it, or if it has
    # none while no other clone is here; and nobody else's, running or not, may be in it.
    alone = known and not any(one["Labels"].get(PROJECT) == project for one in others)
    joined, needed = _networks_of(ours), _networks_of(others)
    networks = sum(
        _remove_network(client, network)
        for network in client.api.networks(filters={"label": [f"{PROJECT}={project}"]})
        if (alone or network["Name"] in joined) and network["Name"] not in needed
    )
    made = {volume["Name"] for volume in _volumes(client, project)}
    images = sum(_remove_image(client, image) for image in _standins(client)) if ours or known else 0
    return len(ours), networks, sorted(mounted | made if known else mounted), images


def _is_own(client: docker.DockerClient, container: dict[str, Any]) -> bool:
    """Whether its labels were set when it was made, and not copied into its image by `docker commit`."""
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
    # Stopped within its own grace first: a database's volume stays, and should be whole.
    with contextlib.suppress(NotFound):
        if container["State"] in {"running", "restarting"}:
            client.api.stop(container["Id"])
        client.api.remove_container(container["Id"], force=True)


def _remove_network(client: docker.DockerClient, network: dict[str, Any]) -> bool:
    try:
        client.api.remove_network(network["Id"])
    except APIError:
        return False  # somebody has just joined it
    return True


def _volumes(client: docker.DockerClient, project: str) -> list[dict[str, Any]]:
    return client.api.volumes(filters={"label": [f"{PROJECT}={project}"]})["Volumes"] or []


def _standins(client: docker.DockerClient) -> list[dict[str, Any]]:
    """The stand-in image, and those built from it, which inherit its label."""
    return list(client.api.images(filters={"label": [STANDIN_LABEL]}))


def _remove_image(client: docker.DockerClient, image: dict[str, Any]) -> bool:
    # By its names and without force, which the engine refuses while any container is made of it, ours or not.
    gone = False
    for name in image.get("RepoTags") or [image["Id"]]:
        with contextlib.suppress(APIError):
            client.api.remove_image(name)
            gone = True
    return gone


def _clean_private(engine: PrivateEngine) -> None:
    if not is_root():
        raise Unprepared("The private engine was started by root: sudo make clean")
    say("Removing the private engine, its containers, volumes and images.")
    # An engine that is down can't remove its networks, and their bridges would stay until the next boot.
    with contextlib.suppress(Unprepared):
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
