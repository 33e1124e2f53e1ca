"""Texts of flags and environment variables as values. Each raises ``ValueError`` with what was expected."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.host.compose_paths import current_directory
from reconciler.options import INSTALLED_STATE, Address

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def parse_switch(text: str) -> bool:
    """Whether a switch is on."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"expected yes or no, found {text!r}")
    return word in _TRUE


def path(text: str) -> Path:
    """An absolute path; ``~`` is the home directory. Links in it stay, so that a swapped one is followed."""
    if not text.strip():
        raise ValueError("expected a path, found nothing")
    named = Path(text).expanduser()
    # Above a link the system goes up from where the link leads to, so that `..` is no matter of names.
    start = Path.cwd() if ".." in named.parts else Path(current_directory())
    return Path(os.path.normpath(start / named))


def port(text: str) -> int:
    """A TCP port."""
    if not text.strip().isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, found {text!r}")
    return int(text)


def host(text: str) -> str:
    """A name or address to listen on; brackets around an IPv6 address are dropped."""
    name = text.strip().removeprefix("[").removesuffix("]")
    if not name or any(letter.isspace() or letter == "/" for letter in name):
        raise ValueError(f"expected a host name or address, found {text!r}")
    return name


def name(text: str) -> str:
    """A host name that requests are made to, as browsers write it."""
    found = text.strip().lower().removesuffix(".")
    if not found or not all(letter.isalnum() or letter in "-._" for letter in found):
        raise ValueError(f"expected a host name without port, such as box.example.org, found {text!r}")
    return found


def address(text: str) -> Address:
    """ADDRESS:PORT."""
    name, colon, number = text.strip().rpartition(":")
    if not colon:
        raise ValueError(f"expected ADDRESS:PORT, such as 172.17.0.1:9464, found {text!r}")
    return Address(host(name), port(number))


def seconds(text: str) -> float:
    """A time above zero, in seconds or as '2m', '1m30s'."""
    from reconciler.model.units import parse_duration

    try:
        found = float(text)
    except ValueError:
        found = parse_duration(text)
    if not 0 < found < 1e9:
        raise ValueError(f"expected a time above zero in seconds, such as 60, 90s or 2m, found {text!r}")
    return found


def parse_timeout(text: str) -> float:
    """How long the daemon is to wait before it answers."""
    found = seconds(text)
    if found > 600:
        raise ValueError(f"expected at most 600 seconds, found {text!r}")
    return found


def number(text: str) -> int:
    """A whole number above zero."""
    if not text.strip().isdecimal() or not 0 < int(text) < 2**53:
        raise ValueError(f"expected a whole number above zero, found {text!r}")
    return int(text)


def parse_count(text: str) -> int:
    """How many of something to show."""
    found = number(text)
    if found > 1000:
        raise ValueError(f"expected a number up to 1000, found {text!r}")
    return found


def lines(text: str) -> int:
    """How many lines of a log; 0 is none."""
    if not text.strip().isdecimal() or int(text) > 10_000:
        raise ValueError(f"expected a number of lines from 0 to 10000, found {text!r}")
    return int(text)


def parse_time_option(text: str) -> str:
    """A time as RFC 3339: given like that, or how long from now, such as 90m or 2h."""
    import time

    from reconciler.model.units import format_time, parse_duration, parse_time

    try:
        return format_time(parse_time(text))
    except ValueError:
        pass
    try:
        return format_time(time.time() + parse_duration(text))
    except ValueError:
        raise ValueError(
            f"expected a time such as 2026-11-24T06:00:00Z, or how long, such as 90m, found {text!r}"
        ) from None


def url(text: str) -> str:
    """The address of a daemon, without a slash at its end."""
    plain = text.strip()
    whole = plain if "://" in plain else f"http://{plain}"
    parts = urlsplit(whole)
    try:
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ValueError(f"expected an address such as http://127.0.0.1:8000, found {text!r}")
    return whole.rstrip("/")


def text(given: str) -> str:
    """A word without blanks or a dash before it: a URL, the name of a branch."""
    word = given.strip()
    # What begins with a dash would be an option to git.
    if not word or word.startswith("-") or any(letter.isspace() for letter in word):
        raise ValueError(f"expected one word, found {given!r}")
    return word


def folder_within(given: str) -> str:
    """A relative path that stays where it begins; empty for that place itself."""
    parts = [part for part in given.strip().split("/") if part not in {"", "."}]
    if given.strip().startswith("/") or ".." in parts or ".git" in parts:
        raise ValueError(f"expected a folder within the repository, found {given!r}")
    return "/".join(parts)


def one_of(*words: str) -> Callable[[str], str]:
    """A converter that takes these words alone."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {' or '.join(words)}, found {text!r}")
        return text

    return convert


def default_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where the daemon keeps its state: ``$STATE_DIRECTORY`` (systemd sets it), else the user's own."""
    surroundings = os.environ if environ is None else environ
    given = surroundings.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return path(given)
    return path("~/.local/state/service-manager")


def nearest_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The state that a command looks at: the installed daemon's if there is one, else as the daemon."""
    surroundings = os.environ if environ is None else environ
    if not surroundings.get("STATE_DIRECTORY") and INSTALLED_STATE.is_dir():
        return INSTALLED_STATE
    return default_state_dir(surroundings)


def default_url(environ: Mapping[str, str] | None = None) -> str:
    """Where the daemon of this machine answers, as its own variables have it."""
    surroundings = os.environ if environ is None else environ
    number = surroundings.get("SERVICE_MANAGER_PORT", "")
    return f"http://127.0.0.1:{number if number.isdecimal() else 8000}"
