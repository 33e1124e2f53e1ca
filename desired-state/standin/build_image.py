"""Build the stand-in image that compose.standin.yaml runs in place of every real one, without a registry.

    python desired-state/standin/build_image.py [--busybox FILE]

The image has a static busybox, the two scripts beside this file and a few links, and is loaded into the
engine that DOCKER_HOST names. The same content gives the same bytes everywhere, and an image that the
engine already has is not built again, so this can run before every start. `ensure_image` does the same for
callers that have a client. Needs Python 3.11 and the `docker` package.
"""

import argparse
import hashlib
import io
import json
import shutil
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors

TAG = "service-manager/standin:1"
DIGEST_LABEL = "service-manager.standin.digest"
EPOCH = "1970-01-01T00:00:00Z"
HERE = Path(__file__).resolve().parent

# A fixed list: busybox can list its applets only when it runs, and this one may be for another architecture.
APPLETS_OF_SCRIPTS = ("dd", "mkfifo", "rm", "sh", "sleep")
APPLETS_OF_PEOPLE = ("cat", "env", "grep", "head", "kill", "ls", "ps", "tail", "top", "touch", "vi")
# The programs that health checks in compose.yaml call.
CLIENTS = ("curl", "kafka-broker-api-versions", "pg_isready", "wget")

HOST_BUSYBOXES = ("/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/sbin/busybox.static")
BUSYBOX_IMAGES = ("busybox:stable-musl", "busybox:musl", "busybox:stable-uclibc", "busybox:latest")
# The number of an architecture in ELF, and its name in Go, which Docker uses.
MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}
REMEDY = """\
the stand-in image needs a static busybox for {architecture}, and none was found. Any of these helps:
  sudo apt-get install busybox-static    (Debian, Ubuntu)
  docker pull busybox:stable-musl        (it is copied from that image)
  --busybox FILE                         (your own static busybox)"""


class NoBusybox(Exception):
    """No busybox to build the image from; the message has the remedy."""


def ensure_image(client: docker.DockerClient, busybox: Path | None = None) -> bool:
    """Build the image, unless the engine has it; return True if it was built."""
    architecture = client.version()["Arch"]
    layer = make_layer(find_busybox(client, architecture, busybox))
    config = make_config(layer, architecture)
    labels = config["config"]["Labels"]
    try:
        # Compare a label, since the id depends on the engine's image store.
        if client.images.get(TAG).labels.items() >= labels.items():
            return False
    except docker.errors.ImageNotFound:
        pass
    client.images.load(make_archive(layer, config))
    return True


def find_busybox(client: docker.DockerClient, architecture: str, given: Path | None = None) -> bytes:
    """Return the bytes of a static busybox for the engine's architecture."""
    for binary in [given.read_bytes()] if given else candidates(client):
        if static_architecture(binary) == architecture:
            return binary
    raise NoBusybox(REMEDY.format(architecture=architecture))


def candidates(client: docker.DockerClient) -> Iterator[bytes]:
    """Yield every available busybox: first those of this machine, then those in images of the engine."""
    found = shutil.which("busybox")
    for path in map(Path, [*([found] if found else []), *HOST_BUSYBOXES]):
        if path.is_file():
            yield path.read_bytes()
    for image in BUSYBOX_IMAGES:
        try:
            container = client.containers.create(image, "true")
        except docker.errors.ImageNotFound:
            continue
        try:
            stream, _ = container.get_archive("/bin/busybox")
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
                if file := tar.extractfile(tar.getmembers()[0]):
                    yield file.read()
        finally:
            container.remove()


def static_architecture(binary: bytes) -> str | None:
    """Return the architecture of an executable; None if it isn't for Linux or needs shared libraries."""
    if binary[:4] != b"\x7fELF":
        return None
    wide, order = binary[4] == 2, "<" if binary[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", binary, 18)
    (headers,) = struct.unpack_from(order + ("Q" if wide else "I"), binary, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", binary, 54 if wide else 42)
    kinds = {struct.unpack_from(order + "I", binary, headers + i * size)[0] for i in range(count)}
    interpreter = 3  # a program header that names the dynamic linker
    return None if interpreter in kinds else MACHINES.get(machine)


def make_layer(busybox: bytes) -> bytes:
    """Return the file tree as a tar; equal content gives equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int = 0o755, content: bytes = b"", target: str = "") -> None:
            member = tarfile.TarInfo(name)  # owned by root, dated 1970
            member.type, member.mode, member.size, member.linkname = kind, mode, len(content), target
            tar.addfile(member, io.BytesIO(content))

        for folder in ("bin", "etc", "run", "standin", "usr", "usr/local", "usr/local/bin"):
            add(folder, tarfile.DIRTYPE)
        # Writable by all, since a service may run as any user.
        for folder in ("run/standin", "tmp"):
            add(folder, tarfile.DIRTYPE, 0o1777)
        add("etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/:/bin/sh\n")
        add("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\n")
        add("bin/busybox", tarfile.REGTYPE, content=busybox)
        for applet in (*APPLETS_OF_SCRIPTS, *APPLETS_OF_PEOPLE):
            add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, target="busybox")
        for script in ("entry", "check"):
            add(f"standin/{script}", tarfile.REGTYPE, content=(HERE / f"{script}.sh").read_bytes())
        for name in CLIENTS:
            add(f"usr/local/bin/{name}", tarfile.SYMTYPE, 0o777, target="/standin/check")
    return buffer.getvalue()


def make_config(layer: bytes, architecture: str) -> dict[str, Any]:
    """Return the image's configuration, with its digest as a label."""
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        "created": EPOCH,
        "config": {"Entrypoint": ["/standin/entry"], "Env": ["PATH=/usr/local/bin:/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": EPOCH, "created_by": "desired-state/standin/build_image.py"}],
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    config["config"]["Labels"] = {DIGEST_LABEL: digest}
    return config


def make_archive(layer: bytes, config: dict[str, Any]) -> bytes:
    """Return the archive for `docker load`.

    `docker import` writes the time into the image: the same content would get another id at every build, and
    every container of it would be out of date.
    """
    config_json = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_json).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [TAG], "Layers": ["layer.tar"]}]
    files = {config_name: config_json, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def main() -> int:
    """Run the command line; return 1 if the image can't be built."""
    parser = argparse.ArgumentParser(description=f"Build {TAG} in the engine that DOCKER_HOST names.")
    parser.add_argument("--busybox", type=Path, metavar="FILE", help="the static busybox to use")
    arguments = parser.parse_args()
    try:
        built = ensure_image(docker.from_env(), arguments.busybox)
    except (NoBusybox, OSError, docker.errors.DockerException) as error:
        print(f"build_image: {error}", file=sys.stderr)
        return 1
    print(f"{TAG}: {'built' if built else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
