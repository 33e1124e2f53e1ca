from __future__ import annotations

import time

import pytest

from reconciler.errors import InvalidDesiredState
from reconciler.host.yaml_positions import MAX_BYTES, Position, parse_document


def refused(content: bytes) -> str:
    with pytest.raises(InvalidDesiredState) as caught:
        parse_document("f.yaml", content)
    (mistake,) = caught.value.mistakes
    return str(mistake)


def test_on_is_a_word_and_true_a_boolean() -> None:
    read = parse_document("f.yaml", b"a: on\nb: true\nc: 0x10\nd: ~\ne: 1.5\nf: 2026-11-23T18:00:00Z\n").plain
    assert read == {"a": "on", "b": True, "c": 16, "d": None, "e": 1.5, "f": "2026-11-23T18:00:00Z"}


def test_every_value_and_key_has_its_position() -> None:
    document = parse_document("f.yaml", b"a:\n  b: [x, y]\n  c: {d: 1}\n")
    assert document.at(("a", "b", 1)) == Position(2, 10)
    assert document.at(("a", "c"), key=True) == Position(3, 3)
    assert document.at(("a", "c", "d")) == Position(3, 10)
    assert document.at(("a", "nothing", "here")) == Position(2, 3)


def test_columns_count_characters_not_bytes() -> None:
    assert parse_document("f.yaml", "ä: {ö: ü}\r\nb: 1".encode()).at(("ä", "ö")) == Position(1, 8)


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"a: 1\nb: \xff", "f.yaml:2:4: byte 8 is not UTF-8 text"),
        ("ä: ".encode() + b"\xff", "f.yaml:1:4: byte 4 is not UTF-8 text"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1: byte 0 is not UTF-8 text"),
        (b"", "f.yaml: the file is empty"),
        (b" \n\n", "f.yaml: the file is empty"),
        (b"# only this\n", "f.yaml:1:1: the file holds no values, only comments or blank lines"),
        (b"a: 1\nb: 2\na: 3", "f.yaml:3:1: the key 'a' is given twice; first on line 1"),
        (b"a:\n\tb: 1", "f.yaml:2:1: a tab can't indent YAML; use spaces"),
        (b"a: 1\n---\nb: 2", "f.yaml:2:1: a second document begins here; one file holds one document"),
        (b"a: [1", "f.yaml:1:6: a list in [brackets] is not closed, or a comma is missing"),
        (b"a: {b: 1", "f.yaml:1:9: a mapping in {braces} is not closed, or a comma is missing"),
        (b'a: "x', "f.yaml:1:6: the file ends in the middle of a quoted text"),
        (b"a: *x", "f.yaml:1:4: an alias (*name) with no anchor (&name) before it"),
        (
            b"a: !!python/object:os.system x",
            "f.yaml:1:4: unknown tag !!python/object:os.system",
        ),
        (b"a: 1\x00\x00", "f.yaml:1:5: YAML does not allow the character U+0000"),
        (b"a: \x07", "f.yaml:1:4: YAML does not allow the character U+0007"),
        (b"? [a]\n: 1", "f.yaml:1:3: a key is one word, not a list or a mapping"),
        (b"a: 1\n<<: 2", "f.yaml:2:5: << takes a mapping, or a list of mappings"),
    ],
)
def test_unreadable_yaml_is_reported_with_its_position(content: bytes, mistake: str) -> None:
    assert refused(content).startswith(mistake)


def test_unexpected_colon_is_explained() -> None:
    assert refused(b"groups:\n  a on\n  b: off\n").startswith("f.yaml:3:4: a colon is not expected here")


def test_file_above_the_size_limit_is_not_decoded() -> None:
    assert "at most" in refused(b"\xff" * (MAX_BYTES + 1))


def test_alias_expansion_is_bounded() -> None:
    lines = [b"a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for new, old in zip(b"bcdefghi", b"abcdefgh", strict=True):
        lines.append(b"%c: &%c [%s]" % (new, new, b", ".join([b"*%c" % old] * 10)))
    began = time.monotonic()
    assert "aliases (*name) multiply" in refused(b"\n".join(lines))
    assert time.monotonic() - began < 5
    assert "aliases (*name) multiply" in refused(b"&a [*a]")


def test_deep_nesting_is_rejected() -> None:
    assert "nested too" in refused(b"[" * 3000)
    assert "nested too" in refused(b"[" * 100 + b"]" * 100)


def test_own_keys_override_merged_keys() -> None:
    document = parse_document("f.yaml", b"x: &x {a: 1, b: 1}\ny:\n  b: 2\n  <<: *x\n")
    assert document.plain["y"] == {"a": 1, "b": 2}
    assert document.at(("y", "b")) == Position(3, 6)


def test_lenient_parse_accepts_tags_duplicate_keys_and_more_documents() -> None:
    content = b"a: !reset null\nb: 1\nb: 2\n---\nc: 3\n"
    assert parse_document("f.yaml", content, lenient=True).plain == {"a": "null", "b": 2}


def test_byte_order_mark_is_not_part_of_the_first_key() -> None:
    assert parse_document("f.yaml", b"\xef\xbb\xbfa: 1").plain == {"a": 1}


def test_parsing_stops_early_at_the_node_limit() -> None:
    began = time.process_time()
    assert "far too many values" in refused(b"- a\n" * 200_000)
    assert time.process_time() - began < 10


def test_duplicate_anchors_are_accepted() -> None:
    assert parse_document("f.yaml", b"a: &x 1\nb: &x 2\nc: *x\n").plain == {"a": 1, "b": 2, "c": 2}
