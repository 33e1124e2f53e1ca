"""`make run`, in the environment that `venv` makes: finds or starts an engine, then becomes the daemon.

Works on the checkout itself: `desired-state/groups.yaml` is the file to edit; new files go to `.run/`.
`choose` holds the decisions, `clean` removes everything again.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import sys
from pathlib import Path

from docker.errors import DockerException
from requests.exceptions import RequestException

from reconciler.quickstart import images
from reconciler.quickstart import record as records
from reconciler.quickstart.choose import ENGINES, Images
from reconciler.quickstart.host import (
    SetupError,
    find_program,
    install,
    is_debian,
    is_root,
    listen_problem,
    process_arguments,
    report,
)
from reconciler.quickstart.setup import (
    DESIRED_STATE,
    ENGINE_TIMEOUT,
    ROOT,
    RUN,
    Engine,
    check_compose,
    install_engine,
    prepare_engine,
    prepare_images,
    relative_path,
)

STANDIN = DESIRED_STATE / "compose.standin.yaml"
METRICS_PORT = 8001
"""The port that the shipped Prometheus scrapes (`desired-state/config/prometheus.yml`)."""
TEST_PROGRAMS = {
    "busybox": "busybox-static",
    "caddy": "caddy",
    "chromium": "chromium",
    "debootstrap": "debootstrap",
    "fish": "fish",
    "git": "git",
    "gpg": "gnupg",
    "haproxy": "haproxy",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "sshd": "openssh-server",
    "zsh": "zsh",
}
"""Programs that the tests run, and their Debian packages."""
_SETS_ENGINE = ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


def running_daemon(desired_state: Path, record: records.Record) -> str:
    """Return the address of the daemon that holds this directory; empty: none does."""
    descriptor = os.open(desired_state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        known = "reconciler" in process_arguments(record.daemon_pid)
        return f"at {record.daemon_url} (pid {record.daemon_pid})" if known else "(not started by `make run`)"
    finally:
        os.close(descriptor)
    return ""


def check_free(host: str, port: int, record: records.Record) -> None:
    """Check that no daemon runs on this directory and that the port is free.

    Raises:
        SetupError: a daemon runs already, or the port is taken; says what to do.
    """
    if where := running_daemon(DESIRED_STATE, record):
        raise SetupError(
            f"A daemon already runs on {relative_path(DESIRED_STATE)}, {where}. Nothing was started."
        )
    if problem := listen_problem(host, port):
        other = next((n for n in range(port + 10, port + 200, 10) if not listen_problem(host, n)), port + 1)
        raise SetupError(f"Port {port} of {host}: {problem}. Choose another: make run PORT={other}")


def command(arguments: argparse.Namespace, engine: Engine, decision: Images, metrics: str) -> list[str]:
    """Return the daemon's command line."""
    return [
        *(sys.executable, "-m", "reconciler", "run"),
        *("--desired-state", str(DESIRED_STATE), "--state-dir", str(RUN / "state")),
        *("--host", arguments.host, "--port", str(arguments.port)),
        *([] if engine.address else ["--engine", "simulated"]),
        *(["--compose-file", str(STANDIN)] if decision.standin else []),
        *(["--metrics-listen", metrics] if metrics else []),
        *shlex.split(arguments.args),
    ]


def metrics_address(engine: Engine, decision: Images, given: str) -> str:
    """Return the address of the metrics for a Prometheus in a container: on the engine's default bridge.

    Only this machine and its containers reach that bridge. Empty with the simulated engine, with stand-in
    images, if ``given`` sets the address, or if the bridge belongs to another machine.
    """
    if engine.address is None or decision.standin or "--metrics-listen" in given:
        return ""
    client = images.connect(engine.address, ENGINE_TIMEOUT)
    try:
        address = images.bridge_address(client)
    finally:
        client.close()
    return f"{address}:{METRICS_PORT}" if address and not listen_problem(address, METRICS_PORT) else ""


def banner(url: str, engine: Engine, decision: Images) -> str:
    """Return the text that is printed before the daemon's own lines."""
    lines = [f"engine     {engine.reason}", f"images     {decision.reason}"]
    if engine.private and engine.address:
        lines.append(f"docker     export DOCKER_HOST={engine.address.url}     for docker ps, stop, logs")
    lines += [
        f"dashboard  {url}/services/dashboard",
        f"API        {url}/services/status     documented at {url}/docs",
        f"edit       {relative_path(DESIRED_STATE / 'groups.yaml')}: the desired state. Saving it is enough",
        "stop       Ctrl-C stops the daemon, the containers stay. make clean removes everything",
    ]
    return "\n".join(["", *(f"  {line}" for line in lines), ""])


def run(arguments: argparse.Namespace) -> int:
    """Prepare engine and images, then become the daemon; never returns."""
    record = records.read(RUN)
    check_free(arguments.host, arguments.port, record)
    check_compose()
    engine = prepare_engine(arguments.engine)
    where = engine.address.url if engine.address else "simulated"
    decision = prepare_images(engine, arguments.standin, record.engines.get(where))
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(arguments.host, arguments.host)  # noqa: S104
    record.daemon_url, record.daemon_pid = f"http://{host}:{arguments.port}", os.getpid()
    if engine.address:
        record.engines[where] = decision.standin
        if engine.address.certificates:
            record.certificates[where] = str(engine.address.certificates)
    records.write(RUN, record)
    report(banner(record.daemon_url, engine, decision))
    environ = dict(os.environ)
    if engine.private and engine.address:
        environ = {name: value for name, value in environ.items() if name not in _SETS_ENGINE}
        environ["DOCKER_HOST"] = engine.address.url
    line = command(arguments, engine, decision, metrics_address(engine, decision, arguments.args))
    os.chdir(ROOT)
    os.execve(line[0], line, environ)  # noqa: S606  (no shell is the point)


def clean(_: argparse.Namespace) -> int:
    """Remove everything that `run` created except the environment, which this program runs in."""
    from reconciler.quickstart.clean import remove_all

    remove_all(ROOT, RUN)
    return 0


def prepare_tests(_: argparse.Namespace) -> int:
    """Install what the tests on a real engine need."""
    check_compose()
    install_engine()
    missing = [package for program, package in TEST_PROGRAMS.items() if find_program(program) is None]
    if missing:
        if not (is_root() and is_debian()):
            raise SetupError(f"The tests need more programs: sudo apt-get install {' '.join(missing)}")
        install(missing)
    if not is_root():
        raise SetupError("The tests start engines of their own, which needs root: sudo make test")
    return 0


def main() -> int:
    """Run the command line that the Makefile uses; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reconciler.quickstart", description=__doc__)
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("run", help="get an engine and images ready, then run the daemon")
    part.add_argument("--host", default="127.0.0.1")
    part.add_argument("--port", type=int, default=8000)
    part.add_argument(
        "--engine", choices=("", *ENGINES), default="", help="default: the one that is available"
    )
    part.add_argument(
        "--standin", choices=("", "0", "1"), default="", help="default: only if images can't be pulled"
    )
    part.add_argument("--args", default="", help="more options of `service-manager run`, in one string")
    part.set_defaults(do=run)
    parts.add_parser("clean", help="remove what run created").set_defaults(do=clean)
    parts.add_parser("prepare-tests", help="install what the tests need").set_defaults(do=prepare_tests)
    arguments = parser.parse_args()
    try:
        return int(arguments.do(arguments))
    except SetupError as problem:
        print(f"\n{problem}", file=sys.stderr)
    except (DockerException, RequestException) as error:
        print(f"\nThe engine failed: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
