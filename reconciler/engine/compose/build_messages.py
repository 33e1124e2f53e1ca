"""Reduces the output of a failed build to its reason. Pure text processing.

BuildKit prints the progress of every step, then the output of the failed step between two lines of dashes,
then the reason with the prefixes of each layer that passed it on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_STEP = re.compile(r"#\d+ (?:\d+\.\d+ )?")
_PREFIXES = re.compile(
    r"(?:rpc error: code = \w+ desc = |failed to solve with frontend [\w.]+: |failed to solve: "
    r"|target \S+: )+"
)
_OUTPUT_TIME = re.compile(r"^\d+\.\d+ ")
_RULE = re.compile(r"-{4,}$")
_OUTPUT_LINES = 2
_NO_CONTEXTS = "frontend.contexts"
NEEDS_BUILDKIT = (
    "the build uses additional_contexts, which this engine's builder does not support: "
    "use Docker 23 or later, or install the buildx plugin"
)


def build_messages(lines: Sequence[str]) -> list[str]:
    """Return the last lines of the failed step's output, and the reason; ``lines`` if none is recognised."""
    kept = [line.strip() for line in lines if line.strip()]
    if any(_NO_CONTEXTS in line for line in kept):
        return [NEEDS_BUILDKIT]
    reason = next((line for line in reversed(kept) if "failed to solve" in line), "")
    if not reason:
        return [line for line in lines if not _STEP.match(line.strip())] or list(lines)
    rules = [number for number, line in enumerate(kept) if _RULE.match(line)]
    block = kept[rules[-2] + 1 : rules[-1]] if len(rules) > 1 else []
    output = [
        _OUTPUT_TIME.sub("", _STEP.sub("", line, count=1)) for line in block if not line.startswith(">")
    ]
    return [*output[-_OUTPUT_LINES:], _PREFIXES.sub("", reason)]
