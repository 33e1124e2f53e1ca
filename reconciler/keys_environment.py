"""The API key in the daemon's environment: taken out of it, so that no child and no process list shows it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import MutableMapping

from reconciler.keys import KeyTrouble

VARIABLE = "SERVICE_MANAGER_API_KEY"


def take_key(environ: MutableMapping[str, str] | None = None) -> str:
    """The key, empty where none is set; afterwards it is in no environment any more.

    Raises:
        KeyTrouble: what is set can't stand in a header, so nobody could ever use it.
    """
    surroundings = os.environ if environ is None else environ
    if environ is None:
        _wipe(VARIABLE)
    key = surroundings.pop(VARIABLE, "").strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise KeyTrouble(
            f"what is in {VARIABLE} can't be a key: plain characters without blanks are expected",
            "`service-manager key add NAME` makes a good one",
        )
    return key


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
