"""Output: tables, colour, removal of control characters, and drawing in place."""

from __future__ import annotations

import io

import pytest
from rich.console import Group

from reconciler.cli.console import Cell, Console, Row, clean, duration, megabytes, standard_console, styled
from reconciler.cli.output.tables import line_of, table_lines
from reconciler.cli.output.terminal import FullScreen, InlineArea
from tests.support.fixtures.terminal import Screen, rendered


def test_table() -> None:
    rows: list[Row] = [("NAME", "MEMORY", "NOTE"), (Cell("kafka", "bold"), "612 MB", "ok"), ("a", "5 MB", "")]
    assert "\n".join(table_lines(rows, right=(1,))) == (
        "NAME   MEMORY  NOTE\nkafka  612 MB  ok\na        5 MB"
    )


def test_only_the_last_column_of_a_table_is_cut() -> None:
    rows = [("kafka", "a long sentence that does not fit"), ("storage-and-more", "short")]
    assert table_lines(rows, width=30) == ["kafka             a long sent…", "storage-and-more  short"]
    assert table_lines(rows)[0].endswith("does not fit")


def test_table_aligns_wide_characters() -> None:
    assert table_lines([("日本", "x"), ("abcd", "y")]) == ["日本  x", "abcd  y"]


def test_colour_does_not_shift_columns() -> None:
    coloured = table_lines([(Cell("a", "red"), "x"), ("abc", "y")], colour=True)
    assert coloured == ["\x1b[31ma\x1b[0m    x", "abc  y"]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 5, "日本…"), ("abc", 1, "…"), ("", 1, "")],
)
def test_line_is_cut_with_an_ellipsis(text: str, width: int, shown: str) -> None:
    assert rendered(line_of([text]), width) == [shown]


def test_control_characters_are_removed() -> None:
    assert clean("a\x1b[2Jb\r\nc\x07\u202ed\u2028e") == "a [2Jb  c  d e"
    assert clean(None) == "None"


def test_memory_and_durations() -> None:
    assert [megabytes(612.4), megabytes(None), megabytes(0)] == ["612 MB", "–", "0 MB"]
    assert [duration(s) for s in (0, 61, 130, 7300, 200_000, None)] == [
        "0 s",
        "61 s",
        "2 min",
        "2 h",
        "2 d",
        "–",
    ]
    assert styled("", "red") == ""


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "colour"),
    [
        (Tty, {}, True),
        (Tty, {"NO_COLOR": "1"}, False),
        (Tty, {"NO_COLOR": ""}, True),
        (Tty, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_colour_only_on_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], environ: dict[str, str], colour: bool
) -> None:
    monkeypatch.setattr("sys.stdout", stream())
    monkeypatch.setattr("sys.stderr", io.StringIO())
    console = standard_console(environ)
    assert (console.colour, console.err_colour) == (colour, False)


def test_failure_has_a_remedy() -> None:
    err = io.StringIO()
    Console(io.StringIO(), err).failure("it\x1b broke", "fix it")
    assert err.getvalue() == "it  broke\n  → fix it\n"


# --- drawing in place ---------------------------------------------------------------------------------


def lines(*texts: str) -> Group:
    return Group(*(line_of([text]) for text in texts))


def on_tty(text: str) -> str:
    """What a terminal gets: the kernel adds a carriage return to each line feed."""
    return text.replace("\n", "\r\n")


class DrawnArea:
    def __init__(self, columns: int = 20, rows: int = 10) -> None:
        self.stream = io.StringIO()
        self.size = (columns, rows)
        self.screen = Screen(columns, rows)
        self.area = InlineArea(self.stream, colour=False, size=lambda _: self.size)

    def draw(self, *texts: str) -> str:
        self.area.draw(lines(*texts))
        return self.take()

    def take(self) -> str:
        self.screen.feed(on_tty(self.stream.getvalue()))
        self.stream.seek(0)
        self.stream.truncate()
        return self.screen.text()


def test_inline_area_is_redrawn_in_place() -> None:
    drawn = DrawnArea()
    drawn.screen.feed("$ before\r\n")
    assert drawn.draw("a 1", "b 1") == "$ before\na 1\nb 1"
    assert drawn.draw("a 2", "b", "c") == "$ before\na 2\nb\nc"
    assert drawn.draw("over") == "$ before\nover"
    assert drawn.screen.hidden
    drawn.area.close()
    drawn.take()
    assert not drawn.screen.hidden
    assert drawn.screen.row == 2


def test_unchanged_frame_is_not_written() -> None:
    drawn = DrawnArea()
    drawn.draw("a")
    drawn.area.draw(lines("a"))
    assert drawn.stream.getvalue() == ""


def test_a_frame_is_one_synchronized_write() -> None:
    drawn = DrawnArea()
    drawn.draw("a", "b")
    drawn.area.draw(lines("c", "d"))
    frame = drawn.stream.getvalue()
    assert frame.startswith("\x1b[?2026h")
    assert frame.endswith("\x1b[?2026l")
    assert frame.count("\x1b[?2026h") == 1


@pytest.mark.parametrize("columns", [1, 2, 5, 19])
def test_lines_never_wrap(columns: int) -> None:
    drawn = DrawnArea(columns)
    drawn.draw("a line much longer than that", "日本語日本語日本語日本語")
    assert drawn.screen.widest < max(columns, 2)
    assert len(drawn.screen.lines) == 2


def test_inline_area_survives_a_narrower_window() -> None:
    drawn = DrawnArea(20)
    drawn.screen.feed("$ before\r\n")
    drawn.draw("0123456789abcdef", "0123456789", "short")
    drawn.screen.narrow(8)
    drawn.size = (8, 10)
    assert drawn.draw("new one", "new two", "three") == "$ before\nnew one\nnew two\nthree"


def test_inline_area_is_no_higher_than_the_window() -> None:
    drawn = DrawnArea(20, 4)
    assert drawn.draw("a", "b", "c", "d", "e") == "c\nd\ne"


def test_full_screen_restores_the_terminal() -> None:
    stream, screen = io.StringIO(), Screen(20, 5)
    screen.feed("$ watch\r\n")
    with FullScreen(stream, colour=False, size=lambda _: (20, 3)) as full:
        full.draw(lines("a", "b", "c", "d"))
        screen.feed(on_tty(stream.getvalue()))
        assert screen.text() == "a\nb\nc"
        assert screen.hidden
        stream.truncate(0)
    screen.feed(on_tty(stream.getvalue().strip("\0")))
    assert screen.text() == "$ watch"
    assert not screen.hidden


def test_line_is_cut_across_cells() -> None:
    assert rendered(line_of([Cell("abc", "red"), Cell("defg")]), 5) == ["abcd…"]
