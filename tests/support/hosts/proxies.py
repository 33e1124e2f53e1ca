"""Reverse proxies with the configuration of `docs/recipes/reverse-proxy.md`, on ports of their own."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.harness.daemon import ROOT, free_port

HOST = "box.example.org"
PATH = "/service-manager"
PAGE = ROOT / "docs" / "recipes" / "reverse-proxy.md"
_NGINX = """daemon off; master_process off; worker_processes 1;
pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{recipe}}}
"""
_CADDY = """{{
    admin off
    auto_https disable_redirects
    default_sni box.example.org
}}
{recipe}"""


def recipe(language: str, *, below_a_path: bool) -> str:
    """The configuration in the documentation, as a user copies it."""
    section = PAGE.read_text().split("\n## ")[2 if below_a_path else 1]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, (language, section)
    return textwrap.dedent(found[1].replace("\n    ", "\n")).lstrip("\n")


@contextmanager
def proxy(kind: str, folder: Path, daemon_port: int, *, below_a_path: bool) -> Iterator[int]:
    """Run a proxy of this kind over TLS; yields its port. ``certificate`` made the files in ``folder``."""
    port = free_port()
    text = recipe(kind, below_a_path=below_a_path).replace("127.0.0.1:8000", f"127.0.0.1:{daemon_port}")
    text = text.replace("/etc/ssl/", f"{folder}/")
    config = folder / f"{kind}.conf"
    if kind == "nginx":
        text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
        config.write_text(_NGINX.format(folder=folder, recipe=text))
        command = ["nginx", "-c", str(config), "-p", str(folder)]
    elif kind == "caddy":
        site = f"https://{HOST}:{port} {{\n    tls {folder}/box.pem {folder}/box.key\n"
        config.write_text(_CADDY.format(recipe=text.replace(f"{HOST} {{\n", site)))
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
    else:
        config.write_text(text.replace("bind :443", f"bind 127.0.0.1:{port}"))
        command = ["haproxy", "-db", "-f", str(config)]
    program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, f"{kind} is missing: apt-get install nginx-light caddy haproxy"
    log = folder / "log"
    homes = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
    environ = {**os.environ, **homes}
    with log.open("wb") as output:
        process = subprocess.Popen([program, *command[1:]], stdout=output, stderr=output, env=environ)
    try:
        path = PATH if below_a_path else ""
        _await_answer(f"https://127.0.0.1:{port}{path}/", process, log)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate for the host and 127.0.0.1; return a context that trusts it."""
    names = f"subjectAltName=DNS:{HOST},IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={HOST}", "-addext", names]
    subprocess.run(
        [*command, "-keyout", str(folder / "box.key"), "-out", str(folder / "box.crt")],
        check=True,
        capture_output=True,
    )
    # HAProxy wants the key in the same file.
    (folder / "box.pem").write_text((folder / "box.crt").read_text() + (folder / "box.key").read_text())
    return ssl.create_default_context(cafile=str(folder / "box.crt"))


def _await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        try:
            answer = httpx.get(url, headers={"host": HOST}, verify=False)
        except httpx.TransportError:
            answer = None
        # HAProxy answers 503 until its first check of the daemon.
        if answer is not None and answer.status_code not in {502, 503}:
            return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
