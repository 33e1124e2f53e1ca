"""Log records in the journal, through a real socket and a stream like the one that systemd passes."""

from __future__ import annotations

import array
import io
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.host import logging_setup
from reconciler.host.journald import Journal, encode_fields, field_name

Fields = dict[str, str]


class Journald:
    """A server on the journal's socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(5.0)

    def record(self) -> Fields:
        """Return the next record, decoded as the journal does."""
        content, ancillary, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for level, kind, data in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            descriptor = array.array("i", data)[0]
            content = os.pread(descriptor, 1 << 24, 0)
            os.close(descriptor)
        return unpacked(content)

    def close(self) -> None:
        self._socket.close()
        self.path.unlink()


def unpacked(content: bytes) -> Fields:
    found, stream = {}, io.BytesIO(content)
    while line := stream.readline():
        name, equals, value = line.rstrip(b"\n").partition(b"=")
        if not equals:
            value = stream.read(struct.unpack("<Q", stream.read(8))[0])
            assert stream.read(1) == b"\n"
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    journald = Journald(tmp_path / "socket")
    yield journald
    journald.close()


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[io.TextIOWrapper]:
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as stream:
        yield stream


def stream_to_journal(stream: io.TextIOWrapper) -> Fields:
    """Return the variable that systemd sets for a stream to the journal."""
    found = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def logger_to(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("reconciler.controller.loop", logging.DEBUG)  # noqa: LOG001 - of this test alone
    logger.addHandler(handler)
    return logger


def test_a_record_reaches_the_journal_with_level_and_fields(
    journald: Journald, stream: io.TextIOWrapper
) -> None:
    handler = logging_setup.handler(stream, stream_to_journal(stream), journald.path)
    log = logger_to(handler)
    log.warning("a look failed", extra={"error": "no answer", "service": "kafka"})
    record = journald.record()
    assert record["MESSAGE"] == "a look failed  error='no answer' service=kafka"
    assert record["PRIORITY"] == "4"
    assert record["SYSLOG_IDENTIFIER"] == "service-manager"
    assert record["LOGGER"] == "reconciler.controller.loop"
    assert record["SERVICE_MANAGER_SERVICE"] == "kafka"
    assert record["SERVICE_MANAGER_ERROR"] == "no answer"
    assert record["CODE_FUNC"] == "test_a_record_reaches_the_journal_with_level_and_fields"
    for level, priority in ((10, "7"), (20, "6"), (40, "3"), (50, "2")):
        log.log(level, "x")
        assert journald.record()["PRIORITY"] == priority
    handler.close()
    stream.seek(0)
    assert stream.read() == ""


def test_traceback_is_one_record_with_several_lines(journald: Journald, stream: io.TextIOWrapper) -> None:
    handler = logging_setup.handler(stream, stream_to_journal(stream), journald.path)
    try:
        raise ValueError("first\nPRIORITY=0")  # noqa: TRY301
    except ValueError:
        logger_to(handler).exception("unexpected error")
    record = journald.record()
    assert record["PRIORITY"] == "3"
    first, *rest = record["MESSAGE"].split("\n")
    assert first == "unexpected error"
    assert "ValueError: first" in rest
    handler.close()


def test_record_too_large_for_a_datagram_arrives_complete(
    journald: Journald, stream: io.TextIOWrapper
) -> None:
    handler = logging_setup.handler(stream, stream_to_journal(stream), journald.path)
    logger_to(handler).error("large", extra={"output": "x" * 3_000_000})
    assert journald.record()["SERVICE_MANAGER_OUTPUT"] == "x" * 3_000_000
    handler.close()


def test_restarted_journal_is_reconnected_and_a_stopped_one_is_replaced_by_lines(
    tmp_path: Path, stream: io.TextIOWrapper
) -> None:
    first = Journald(tmp_path / "socket")
    handler = logging_setup.handler(stream, stream_to_journal(stream), first.path)
    log = logger_to(handler)
    first.close()
    log.error("no journal", extra={"service": "kafka"})
    second = Journald(tmp_path / "socket")
    log.error("again")
    assert second.record()["MESSAGE"] == "again"
    second.close()
    handler.close()
    stream.seek(0)
    assert stream.read() == "<3>no journal  service=kafka\n"


def test_lines_carry_their_level_without_a_journal_socket(tmp_path: Path, stream: io.TextIOWrapper) -> None:
    handler = logging_setup.handler(stream, stream_to_journal(stream), tmp_path / "none")
    logger_to(handler).critical("one\ntwo")
    stream.seek(0)
    assert stream.read() == "<2>one\n<2>two\n"


def test_redirected_output_is_no_journal_stream(journald: Journald, stream: io.TextIOWrapper) -> None:
    for environ in ({}, {"JOURNAL_STREAM": "1:2"}, {"JOURNAL_STREAM": "x"}):
        logger_to(logging_setup.handler(stream, environ, journald.path)).warning("hm", extra={"a": 1})
    stream.seek(0)
    lines = stream.read().splitlines()
    assert len(lines) == 3
    assert all(line[8:] == " warning: hm  a=1" for line in lines)


def test_start_up_error_is_critical_in_the_journal(stream: io.TextIOWrapper) -> None:
    logging_setup.emit("no\n  → do this", stream, stream_to_journal(stream))
    logging_setup.emit("no", stream, {})
    stream.seek(0)
    assert stream.read() == "<2>service-manager: no\n<2>  → do this\nservice-manager: no\n"


def test_field_names_and_values_are_valid_for_the_journal() -> None:
    assert field_name("exit-code") == "SERVICE_MANAGER_EXIT_CODE"
    assert len(field_name("x" * 100)) == 64
    assert unpacked(encode_fields([("A", "one\ntwo"), ("B", "= \ud800")])) == {"A": "one\ntwo", "B": "= ?"}


def test_missing_journal_socket_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "none")


def test_texts_of_others_send_no_escapes_to_a_terminal() -> None:
    record = logging.makeLogRecord(
        {
            "name": "reconciler",
            "msg": "pulled \x1b[2J\tnow\u202e",
            "levelno": logging.INFO,
            "levelname": "INFO",
            "author": "\x1b]52;c;aGk=\x07\x1b[2J",
            "c1": "a\x9bb",
            "plain": "zoë",
        }
    )
    line = logging_setup.LineFormatter(journal=False).format(record)
    assert all(char.isprintable() or char == "\t" for char in line)
    assert "pulled \\x1b[2J\tnow\\u202e" in line
    assert "plain=zoë" in line
