"""Finds the address of the engine as the docker CLI does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from reconciler.engine.compose.discovery import config_directory, config_file
from reconciler.host.untrusted import MALFORMED, read_regular
from reconciler.model.json_text import load_json

_DEFAULT = "unix:///var/run/docker.sock"


class Address(NamedTuple):
    """The address of an engine. ``certificates`` is the folder with ca.pem, cert.pem and key.pem; None: no
    TLS.

    ``problem`` says why the address can't be used; the daemon continues without an engine.
    """

    url: str
    certificates: Path | None = None
    verify: bool = True
    problem: str = ""

    @property
    def socket(self) -> str:
        """The path of the Unix socket; empty for an engine on the network."""
        return urlsplit(self.url).path if self.url.startswith("unix://") else ""

    @property
    def host(self) -> tuple[str, int]:
        """Host and port of an engine on the network."""
        parts = urlsplit(self.url)
        return parts.hostname or "localhost", parts.port or (2376 if self.certificates else 2375)


def find_address(environ: Mapping[str, str]) -> Address:
    """Return the address that ``docker`` uses: DOCKER_HOST, else the current context, else the default."""
    if environ.get("DOCKER_HOST"):
        return _checked(Address(environ["DOCKER_HOST"], _certificates(environ)))
    context = environ.get("DOCKER_CONTEXT") or str(config_file(environ).get("currentContext") or "default")
    return Address(_DEFAULT) if context == "default" else _checked(_of_context(context, environ))


def _certificates(environ: Mapping[str, str]) -> Path | None:
    if not environ.get("DOCKER_TLS_VERIFY"):
        return None
    given = environ.get("DOCKER_CERT_PATH")
    return Path(given) if given else config_directory(environ)


def _of_context(context: str, environ: Mapping[str, str]) -> Address:
    folder = config_directory(environ) / "contexts"
    name = hashlib.sha256(context.encode()).hexdigest()
    try:
        meta = load_json(read_regular(folder / "meta" / name / "meta.json", 1 << 20))
        endpoint = meta["Endpoints"]["docker"]
        url = str(endpoint["Host"])
        unchecked = bool(endpoint.get("SkipTLSVerify", False))
    except (OSError, *MALFORMED):
        problem = f"docker context {context!r} can't be read; `docker context ls` lists those there are"
        return Address("", problem=problem)
    certificates = folder / "tls" / name / "docker"
    return Address(url, certificates if certificates.is_dir() else None, not unchecked)


def _checked(address: Address) -> Address:
    if address.problem or urlsplit(address.url).scheme in {"unix", "tcp", "http", "https"}:
        return address
    problem = (
        f"the engine's address {address.url} is of a kind that is not supported here;"
        " set DOCKER_HOST to a unix:// or tcp:// address"
    )
    return address._replace(problem=problem)
