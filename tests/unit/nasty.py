"""Inputs that break readers: deep, huge, cut off, of the wrong shape; always the same ones."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st

bounded = settings(
    max_examples=150, derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate)
)

LAUGHS = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Each line names the one above four times."""

DEPTHS = (30, 70, 600, 1100, 10_000, 100_000)
PIECES = (
    *("[" * depth for depth in DEPTHS),
    *("[" * depth + "]" * depth for depth in DEPTHS),
    *('{"a":' * depth + "1" + "}" * depth for depth in DEPTHS),
    *("- " * depth + "x" for depth in (70, 600, 2000)),
    *("".join(f"{' ' * i}a:\n" for i in range(depth)) for depth in (70, 600)),
    LAUGHS,
    "&a [*a]",
    "a: &a {<<: *a, b: *a}",
    "? {a: [b]}\n: c",
    "1" * 5000,
    "1e999",
    "-1e999",
    "0x" + "f" * 9000,
    "NaN",
    "Infinity",
    "null",
    "[]",
    "{}",
    '""',
    "true",
    "\0",
    "\ufeff",
    "\x85 \u2028",
    "a: !!python/object:os.system x",
    "%YAML 9.9\n---\na: b",
    '"\\ud800"',
    "'" * 4001,
    "|\n" + "x" * 100_000,
    ": " * 5000,
    "*x",
    "<<: [1, 2]",
    "# only this",
)

texts = st.one_of(st.sampled_from(PIECES), st.text(max_size=60))
contents = st.one_of(st.binary(max_size=80), texts.map(lambda text: text.encode(errors="surrogatepass")))

values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**40), 10**40),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["0", "on", "service", "a\0b", "1e999"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, sound: str | bytes) -> bytes:
    """A sound content with one thing wrong with it."""
    whole = sound.encode() if isinstance(sound, str) else sound
    kind = draw(st.sampled_from(["cut", "put", "swap", "byte", "other"]))
    start = draw(st.integers(0, len(whole)))
    if kind == "cut":
        return whole[:start]
    if kind == "put":
        return whole[:start] + draw(contents) + whole[start:]
    if kind == "swap":
        return whole[:start] + draw(contents) + whole[start + draw(st.integers(1, 40)) :]
    if kind == "byte":
        return whole[:start] + bytes([draw(st.integers(0, 255))]) + whole[start + 1 :]
    return draw(contents)


@st.composite
def misshapen(draw: st.DrawFn, sound: Any) -> bytes:
    """A sound JSON value in which one part is of another kind."""
    value = json.loads(json.dumps(sound))
    at, path = value, []
    while isinstance(at, dict | list) and at and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        path.append((at, key))
        at = at[key]
    other = draw(values)
    if not path:
        value = other
    else:
        holder, key = path[-1]
        holder[key] = other
    return json.dumps(value).encode(errors="surrogatepass")
