"""The daemon behind real reverse proxies with TLS, on another port, at the root and below a path."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import quote, urljoin

import httpx
import pytest

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import await_open
from tests.support.harness.daemon import PROGRAM
from tests.support.hosts.proxies import HOST, PATH, certificate, proxy

KEY = "a-key-of-the-environment-that-is-long-enough"
GROUP = "Tools/Extra 1"


def rename_a_group(desired: Path) -> None:
    for name in ("stack.yaml", "groups.yaml"):
        file = desired / name
        file.write_text(re.sub(r"^(  )monitoring:", rf'\1"{GROUP}":', file.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("below_a_path", [False, True], ids=["root", "path"])
@pytest.mark.parametrize("kind", ["nginx", "caddy", "haproxy"])
def test_everything_works_behind_a_proxy(
    kind: str, a_daemon: Start, tmp_path: Path, *, below_a_path: bool
) -> None:
    daemon = a_daemon(rename_a_group, api_key=KEY, allowed_host=HOST, trusted_proxy="127.0.0.1")
    await_open(daemon)
    trusted = certificate(tmp_path)
    daemon_port = int(daemon.url.rpartition(":")[2])
    with proxy(kind, tmp_path, daemon_port, below_a_path=below_a_path) as port:
        base = f"https://{HOST}:{port}" + (PATH if below_a_path else "")
        client = httpx.Client(
            transport=_Resolver(port, httpx.HTTPTransport(verify=trusted, local_address="127.0.0.9")),
            headers={"x-forwarded-for": "6.6.6.6"},
        )
        with client:
            check_page(client, base)
            check_session(client, base, f"https://{HOST}:{port}")
            check_stream(client, base)
            sources = {e["source"] for e in client.get(f"{base}/services/audit").json()["entries"]}
        assert "127.0.0.9 via 127.0.0.1" in sources
        assert not any("6.6.6.6" in source for source in sources)
        if kind == "nginx":
            check_command(tmp_path, base.replace(HOST, "127.0.0.1"))
    assert "Traceback" not in daemon.log()


class _Resolver(httpx.BaseTransport):
    """Connects to the proxy for its host name, and sends the port in Host as browsers do."""

    def __init__(self, port: int, transport: httpx.HTTPTransport) -> None:
        self._port = port
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert (request.url.scheme, request.url.host, request.url.port) == ("https", HOST, self._port)
        connected = httpx.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1"),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": HOST},
        )
        return self._transport.handle_request(connected)

    def close(self) -> None:
        self._transport.close()


def check_page(client: httpx.Client, base: str) -> None:
    """All files of the two pages load, from every address that leads to them."""
    for path in ("/", "/services/dashboard/", "/docs/"):
        found = client.get(base + path, follow_redirects=True)
        assert found.status_code == 200
        assert str(found.url).startswith(base)
        named = re.findall(r'(?:href|src)="([^"#:]+)"', found.text)
        assert len(named) >= 3
        for link in named:
            assert client.get(urljoin(str(found.url), link)).status_code == 200, link
    assert client.get(f"{base}/openapi.json").status_code == 200


def check_session(client: httpx.Client, base: str, origin: str) -> None:
    """A browser signs in and writes; another page can't."""
    begun = client.post(f"{base}/services/session", headers={"origin": origin, "x-api-key": KEY})
    client.headers["x-session-token"] = begun.json()["token"]
    cookie = begun.headers["set-cookie"]
    assert "; Secure" in cookie
    assert f"Path={base.removeprefix(origin)}/;" in cookie
    path = f"{base}/services/restart/{quote(GROUP, safe='')}"
    foreign = client.post(path, headers={"origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["reason"]) == (403, "foreign_origin")
    start = client.post(path.replace("restart", "start"), headers={"origin": origin})
    assert start.status_code in {200, 202}, start.text
    followed = client.get(urljoin(str(start.url), start.headers["location"]))
    assert followed.json()["generation"] == start.json()["generation"]
    assert client.get(f"{base}/services/status/").status_code == 200


def check_stream(client: httpx.Client, base: str) -> None:
    """The first event arrives at once: nothing buffers the stream."""
    with client.stream("GET", f"{base}/services/events", timeout=10) as stream:
        status = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert GROUP in json.loads(status.removeprefix("data: "))["groups"]


def check_command(folder: Path, url: str) -> None:
    """The command line works with the address of the proxy."""
    environ = {**os.environ, "SSL_CERT_FILE": str(folder / "box.crt"), "SERVICE_MANAGER_API_KEY": KEY}
    command = [*PROGRAM, "stop", GROUP, "--url", url]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
