"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reconciler.cli.options import option_types
from reconciler.cli.options.parameters import Argument, Option
from reconciler.options import ENGINES

DAEMON = "Run the daemon"
CHANGE = "Change desired state"
QUERY = "Query the daemon"
OFFLINE = "Work without a daemon"
SECTIONS = (DAEMON, CHANGE, QUERY, OFFLINE)

USAGE_EXIT = ("64", "wrong usage")
DONE_EXITS = (("0", "done"), ("1", "failed; the message says why"), USAGE_EXIT)
READ_EXITS = (("0", "answered"), ("1", "refused, or no answer from the daemon"), USAGE_EXIT)
GROUP_EXIT = ("64", "wrong usage, or unknown group")

GROUPS = Argument(
    "GROUP", "name of a group in stack.yaml; several groups are changed one after another", "+", "groups"
)
DIRECTORY = Argument(
    "DIR", "desired-state directory (default: --desired-state)", "?", "dirs", option_types.path
)

OUTPUT = Option(
    "--output",
    "output format (default: text)",
    "text|json",
    option_types.one_of("text", "json"),
    "text",
    short="-o",
    complete="text json",
)
_URL = Option(
    "--url",
    "address of the daemon (default: http://127.0.0.1:8000, or the port in SERVICE_MANAGER_PORT)",
    "URL",
    option_types.url,
    option_types.default_url,
)
_KEY_FILE = Option(
    "--api-key-file",
    "file with the API key, - for standard input (default: the key in SERVICE_MANAGER_API_KEY)",
    "FILE",
    default=None,
    complete="files",
)
CLIENT = (_URL, _KEY_FILE)
READING = (OUTPUT, *CLIENT)

DESIRED_STATE = Option(
    "--desired-state",
    "directory with stack.yaml and groups.yaml (default: ./desired-state)",
    "DIR",
    option_types.path,
    lambda: option_types.path("desired-state"),
    complete="dirs",
)
COMPOSE_FILE = Option(
    "--compose-file",
    "additional Compose file, after those of stack.yaml; repeatable (variable: colon-separated)",
    "FILE",
    option_types.path,
    (),
    repeat=True,
    complete="files",
)


def _state_dir(help: str, default: Callable[[], Path]) -> Option:
    return Option("--state-dir", help, "DIR", option_types.path, default, complete="dirs")


STATE_DIR = _state_dir(
    "directory for audit log, generations and API keys (default: $STATE_DIRECTORY, or "
    "~/.local/state/service-manager)",
    option_types.default_state_dir,
)
NEAREST_STATE_DIR = _state_dir(
    "state directory of the daemon (default: /var/lib/service-manager if it exists, else as for run)",
    option_types.nearest_state_dir,
)
STATE = (DESIRED_STATE, NEAREST_STATE_DIR, COMPOSE_FILE)
"""The options of commands that read files without a daemon."""
ENGINE = Option(
    "--engine",
    "docker, podman, or simulated: an engine in memory, without containers (default: docker)",
    "|".join(ENGINES),
    option_types.one_of(*ENGINES),
    ENGINES[0],
    complete=" ".join(ENGINES),
)
PORT = Option("--port", "port of REST and dashboard (default: 8000)", "PORT", option_types.port, 8000)
HOST = Option(
    "--host", "address to listen on (default: 127.0.0.1)", "ADDRESS", option_types.host, "127.0.0.1"
)
