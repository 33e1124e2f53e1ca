"""The API key that the daemon is started with: a variable, or a credential that systemd hands over.

The variable is taken out of the environment, so that no child and no process list shows it. The credential
is a file that only the service can read, in a folder that goes with it, by ``LoadCredential=`` in a drop-in
of the unit (``systemd/api-key.conf``).
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
    """The key, empty where none is set; afterwards it is in no environment any more.

    The variable wins over the credential, as one that somebody set just now over what is installed.

    Raises:
        KeyTrouble: what is set can't stand in a header, so nobody could ever use it; or the credential
            can't be read.
    """
    surroundings = os.environ if environ is None else environ
    if environ is None:
        _wipe(VARIABLE)
    place, key = VARIABLE, surroundings.pop(VARIABLE, "").strip()
    if not key:
        place, key = f"the credential {CREDENTIAL!r}", _credential(surroundings)
    if not all("!" <= letter <= "~" for letter in key):
        raise KeyStoreError(
            f"what is in {place} can't be a key: plain characters without blanks are expected",
            "`service-manager key add NAME` makes a good one",
        )
    return key


def _credential(surroundings: Mapping[str, str]) -> str:
    directory = surroundings.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return ""
    try:
        return (Path(directory) / CREDENTIAL).read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        # Without it the daemon would be open to everybody on this machine.
        raise KeyStoreError(
            f"the credential {CREDENTIAL!r} can't be read: {error.strerror}",
            "some containers can't hand credentials to services: remove the drop-in with `LoadCredential=` "
            "(systemctl cat service-manager shows it) and make a key with `service-manager key add NAME`",
        ) from error


def _wipe(name: str) -> None:
    # /proc/PID/environ shows the memory that the process was started with, whatever is unset later.
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.getenv.argtypes = (ctypes.c_char_p,)
    libc.strlen.restype = ctypes.c_size_t
    libc.strlen.argtypes = (ctypes.c_void_p,)
    place = libc.getenv(name.encode())
    if place:
        ctypes.memset(place, ord("*"), libc.strlen(place))
