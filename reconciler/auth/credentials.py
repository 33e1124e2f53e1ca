"""Loads the daemon's API key from an environment variable or a systemd credential.

The variable is removed from the environment, so that no child process and no process list shows it. The
credential is a file that only the service can read; a drop-in of the unit (``systemd/api-key.conf``) sets it
with ``LoadCredential=``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from reconciler.auth.keys import KeyStoreError

VARIABLE = "SERVICE_MANAGER_API_KEY"
CREDENTIAL = "api-key"


def load_api_key(environ: MutableMapping[str, str] | None = None) -> str:
    """Return the API key, "" if none is set, and remove it from the environment.

    The variable overrides the credential: an explicit setting takes precedence over the installed one.

    Raises:
        KeyStoreError: the key has characters that an HTTP header can't carry, or the credential can't be
            read.
    """
    variables = os.environ if environ is None else environ
    if environ is None:
        _wipe(VARIABLE)
    place, key = VARIABLE, variables.pop(VARIABLE, "").strip()
    if not key:
        place, key = f"the credential {CREDENTIAL!r}", _credential(variables)
    if not all("!" <= letter <= "~" for letter in key):
        raise KeyStoreError(
            f"{place} is not a valid key: only printable ASCII characters without spaces are allowed",
            "`service-manager key add NAME` creates a valid one",
        )
    return key


def _credential(variables: Mapping[str, str]) -> str:
    directory = variables.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return ""
    try:
        return (Path(directory) / CREDENTIAL).read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        # Continuing without the key would give every local user full control.
        raise KeyStoreError(
            f"the credential {CREDENTIAL!r} can't be read: {error.strerror}",
            "some containers can't pass credentials to services: remove the drop-in with `LoadCredential=` "
            "(systemctl cat service-manager shows it) and create a key with `service-manager key add NAME`",
        ) from error


def _wipe(name: str) -> None:
    # /proc/PID/environ shows the initial environment, even after a variable is unset.
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.getenv.argtypes = (ctypes.c_char_p,)
    libc.strlen.restype = ctypes.c_size_t
    libc.strlen.argtypes = (ctypes.c_void_p,)
    place = libc.getenv(name.encode())
    if place:
        ctypes.memset(place, ord("*"), libc.strlen(place))
