"""Converts texts of options and environment variables. Every function raises ``ValueError`` for bad text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.host.compose_paths import current_directory
from reconciler.options import INSTALLED_STATE, Address

WORDS = re.compile(r"[\s,]+")
"""Separates the values of a variable that may hold colons themselves."""
HOSTS = re.compile(r"[\s,]+|:(?!\d{1,5}(?:[\s,:]|$))")
"""Separates NAME and NAME:PORT."""

_ROOT_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def parse_switch(text: str) -> bool:
    """Return the value of a switch: yes or no, true or false, on or off, 1 or 0."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"expected yes or no, found {text!r}")
    return word in _TRUE


def path(text: str) -> Path:
    """Return an absolute path; ``~`` is the home directory.

    Links stay in the path, so that a link that is replaced later leads to its new target.
    """
    if not text.strip():
        raise ValueError("expected a path, found an empty text")
    named = Path(text).expanduser()
    # `..` after a link means the parent of the link's target, so it can't be resolved by name.
    start = Path.cwd() if ".." in named.parts else Path(current_directory())
    return Path(os.path.normpath(start / named))


def port(text: str) -> int:
    """Return a TCP port."""
    if not text.strip().isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, found {text!r}")
    return int(text)


def host(text: str) -> str:
    """Return a host name or address to listen on; brackets around an IPv6 address are removed."""
    name = text.strip().removeprefix("[").removesuffix("]")
    if not name or any(letter.isspace() or letter == "/" for letter in name):
        raise ValueError(f"expected a host name or address, found {text!r}")
    return name


def host_name(text: str) -> str:
    """Return a host name as browsers send it, in lower case and without a final dot, or NAME:PORT."""
    name, colon, number = text.strip().lower().partition(":")
    name = name.removesuffix(".")
    if not name or not all(letter.isalnum() or letter in "-._" for letter in name):
        raise ValueError(f"expected a host name, such as server.example.org, found {text!r}")
    return f"{name}:{port(number)}" if colon else name


def network(text: str) -> IPv4Network | IPv6Network:
    """Return a network such as 172.16.0.0/12; a single address is a network of one."""
    try:
        return ip_network(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(
            f"expected an address or a network, such as 127.0.0.1 or 172.16.0.0/12, found {text!r}"
        ) from None


def root_path(text: str) -> str:
    """Return the path at which a proxy serves the daemon: a slash first and none last, empty for the top."""
    path = "/" + text.strip().strip("/")
    if path != "/" and not _ROOT_PATH.fullmatch(path):
        raise ValueError(f"expected a path such as /service-manager, found {text!r}")
    return path.rstrip("/")


def address(text: str) -> Address:
    """Return an address and port from ADDRESS:PORT."""
    name, colon, number = text.strip().rpartition(":")
    if not colon:
        raise ValueError(f"expected ADDRESS:PORT, such as 172.17.0.1:9464, found {text!r}")
    return Address(host(name), port(number))


def seconds(text: str) -> float:
    """Return a duration above zero in seconds; the text may be '90', '2m' or '1m30s'."""
    from reconciler.model.units import parse_duration

    try:
        duration = float(text)
    except ValueError:
        duration = parse_duration(text)
    if not 0 < duration < 1e9:
        raise ValueError(f"expected a time above zero in seconds, such as 60, 90s or 2m, found {text!r}")
    return duration


def parse_timeout(text: str) -> float:
    """Return the time that the daemon may wait before it answers, in seconds; at most 600."""
    duration = seconds(text)
    if duration > 600:
        raise ValueError(f"expected at most 600 seconds, found {text!r}")
    return duration


def number(text: str) -> int:
    """Return a whole number above zero."""
    if not text.strip().isdecimal() or not 0 < int(text) < 2**53:
        raise ValueError(f"expected a whole number above zero, found {text!r}")
    return int(text)


def parse_count(text: str) -> int:
    """Return a number of entries to show, at most 1000."""
    count = number(text)
    if count > 1000:
        raise ValueError(f"expected a number up to 1000, found {text!r}")
    return count


def lines(text: str) -> int:
    """Return a number of log lines, from 0 to 10000."""
    if not text.strip().isdecimal() or int(text) > 10_000:
        raise ValueError(f"expected a number of lines from 0 to 10000, found {text!r}")
    return int(text)


def parse_time_option(text: str) -> str:
    """Return an RFC 3339 time; the text is one, or a duration from now such as 90m or 2h."""
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
            f"expected a time such as 2026-11-24T06:00:00Z or a duration such as 90m, found {text!r}"
        ) from None


def url(text: str) -> str:
    """Return the URL of a daemon, without a slash at the end."""
    plain = text.strip()
    full = plain if "://" in plain else f"http://{plain}"
    parts = urlsplit(full)
    try:
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise ValueError(f"expected an address such as http://127.0.0.1:8000, found {text!r}")
    return full.rstrip("/")


def word(given: str) -> str:
    """Return one word that does not begin with a dash, such as a URL or the name of a branch."""
    text = given.strip()
    # git takes a word that begins with a dash for an option.
    if not text or text.startswith("-") or any(letter.isspace() for letter in text):
        raise ValueError(f"expected one word, found {given!r}")
    return text


def folder_within(given: str) -> str:
    """Return a relative path inside a repository; empty for the top of the repository."""
    parts = [part for part in given.strip().split("/") if part not in {"", "."}]
    if given.strip().startswith("/") or ".." in parts or ".git" in parts:
        raise ValueError(f"expected a folder inside the repository, found {given!r}")
    return "/".join(parts)


def one_of(*words: str) -> Callable[[str], str]:
    """Return a converter that accepts only these words."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {' or '.join(words)}, found {text!r}")
        return text

    return convert


def default_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the daemon's state directory: ``$STATE_DIRECTORY``, set by systemd, else one in the home."""
    variables = os.environ if environ is None else environ
    given = variables.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return path(given)
    return path("~/.local/state/service-manager")


def nearest_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the state directory of the installed daemon if it exists, else ``default_state_dir``."""
    variables = os.environ if environ is None else environ
    if not variables.get("STATE_DIRECTORY") and INSTALLED_STATE.is_dir():
        return INSTALLED_STATE
    return default_state_dir(variables)


def default_url(environ: Mapping[str, str] | None = None) -> str:
    """Return the URL of this machine's daemon, with the port of ``$SERVICE_MANAGER_PORT``."""
    variables = os.environ if environ is None else environ
    number = variables.get("SERVICE_MANAGER_PORT", "")
    return f"http://127.0.0.1:{number if number.isdecimal() else 8000}"
