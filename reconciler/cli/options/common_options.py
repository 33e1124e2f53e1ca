"""Options that several commands share."""

from __future__ import annotations

from reconciler.cli.options import option_types
from reconciler.cli.options.spec import Option

DAEMON = "The daemon"
CHANGE = "Changing what should be on"
ASK = "Asking the daemon"
OFFLINE = "Without a daemon"
SECTIONS = (DAEMON, CHANGE, ASK, OFFLINE)

USAGE_EXIT = ("64", "the command line can't be understood")

OUTPUT = Option(
    "--output",
    "text for people, json for programs (-o for short)",
    "text|json",
    option_types.one_of("text", "json"),
    "text",
    complete="text json",
)
_URL = Option(
    "--url",
    "where the daemon answers; http://127.0.0.1:8000, or the port in SERVICE_MANAGER_PORT",
    "URL",
    option_types.url,
    option_types.default_url,
)
_KEY_FILE = Option(
    "--api-key-file",
    "file that holds the API key, - for standard input; else SERVICE_MANAGER_API_KEY is the key itself",
    "FILE",
    default=None,
    complete="files",
)
CLIENT = (_URL, _KEY_FILE)
READING = (OUTPUT, *CLIENT)

DESIRED_STATE = Option(
    "--desired-state",
    "the directory with stack.yaml and groups.yaml; ./desired-state unless said otherwise",
    "DIR",
    option_types.path,
    lambda: option_types.path("desired-state"),
    complete="dirs",
)
COMPOSE_FILE = Option(
    "--compose-file",
    "one more Compose file, after those of stack.yaml; may be given again (in the variable: between colons)",
    "FILE",
    option_types.path,
    (),
    repeat=True,
    complete="files",
)
STATE_DIR = Option(
    "--state-dir",
    "audit log, generations, last good state; $STATE_DIRECTORY, else ~/.local/state/service-manager",
    "DIR",
    option_types.path,
    option_types.default_state_dir,
    complete="dirs",
)
NEAREST_STATE_DIR = STATE_DIR._replace(
    help="where the daemon keeps its state; /var/lib/service-manager if there is one, else as for run",
    default=option_types.nearest_state_dir,
)
ENGINE = Option(
    "--engine",
    "docker, or simulated: an engine in memory, for a look around without any containers",
    "docker|simulated",
    option_types.one_of("docker", "simulated"),
    "docker",
    complete="docker simulated",
)
PORT = Option("--port", "port of REST and dashboard; 8000", "PORT", option_types.port, 8000)
HOST = Option("--host", "address to listen on; 127.0.0.1", "ADDRESS", option_types.host, "127.0.0.1")
