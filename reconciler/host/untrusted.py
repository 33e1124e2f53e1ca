"""Reading what others wrote: files, programs and engines may hand over anything; none of it is a crash."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What code raises that takes a value apart which has another shape than expected."""

PASSING = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
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
"""Errors that say nothing about a file itself: the next attempt may succeed."""

_MOST_BYTES = 64 << 20


def is_passing(error: OSError) -> bool:
    """Whether another attempt is worth making before the file counts as unreadable."""
    return error.errno in PASSING


def read_regular(path: Path, most: int = _MOST_BYTES) -> bytes:
    """The content of a regular file; a pipe or a device is never waited for.

    Raises:
        OSError: there is none, it can't be read, is of another kind (EINVAL) or longer than ``most`` (EFBIG).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is longer than {most} bytes", str(path))
    return content
