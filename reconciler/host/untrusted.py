"""Read untrusted input: malformed files, program output and engine responses must never crash the daemon."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Errors that parsing code raises for a value with an unexpected shape."""

TRANSIENT = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETXTBSY,  # a program that is being replaced
        errno.EINTR,
        errno.ETIMEDOUT,
        errno.ENOLCK,
        errno.ENOTCONN,
        errno.EREMOTEIO,
        errno.ECONNRESET,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
    }
)
"""Error numbers whose cause is not the file itself: a retry may succeed."""

_MAX_BYTES = 64 << 20


def is_transient(error: OSError) -> bool:
    """Return whether a retry may succeed, so that the file does not count as unreadable yet."""
    return error.errno in TRANSIENT


def read_regular(path: Path, max_bytes: int = _MAX_BYTES, *, follow: bool = True) -> bytes:
    """Return the content of a regular file; never waits for a pipe or a device.

    Raises:
        OSError: the file is missing, unreadable, not regular (EINVAL), above ``max_bytes`` (EFBIG), or a
            link without ``follow`` (ELOOP).
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"is longer than {max_bytes} bytes", str(path))
    return content
