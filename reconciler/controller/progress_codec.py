"""Encodes the progress of a generation as JSON, so that it survives a restart, and decodes it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from reconciler.controller.progress import Progress, StepRecord
from reconciler.host.stored_json import decode, encode
from reconciler.model.json_text import load_json


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProgress:
    """``progress.Progress`` without its number, which its record has, and without the expected end."""

    state: str
    reason: str
    message: str
    done: int
    total: int
    began_at: float
    ended_at: float
    steps: tuple[StepRecord, ...]


_ADAPTER = TypeAdapter(StoredProgress)


def encode_progress(progress: Progress) -> str:
    """Encode a progress as JSON text."""
    stored = StoredProgress(
        state=progress.state,
        reason=progress.reason,
        message=progress.message,
        done=progress.done,
        total=progress.total,
        began_at=progress.began_at,
        ended_at=progress.ended_at,
        steps=progress.steps,
    )
    return encode(_ADAPTER, stored).decode()


def decode_progress(generation: int, text: str) -> Progress:
    """Decode the result of ``encode_progress``.

    Raises:
        ValueError: the text is something else.
    """
    stored = decode(_ADAPTER, upgrade(load_json(text)))
    return Progress(
        generation=generation,
        state=stored.state,
        reason=stored.reason,
        message=stored.message,
        done=stored.done,
        total=stored.total,
        began_at=stored.began_at,
        ended_at=stored.ended_at,
        steps=stored.steps,
    )


def upgrade(value: Any) -> dict[str, Any]:
    """Return a stored progress of any version in the current shape; all versions wrote the same one.

    Raises:
        ValueError: it is not a progress.
    """
    if not isinstance(value, dict):
        raise ValueError("it is not a progress")  # noqa: TRY004 - a damaged file, not a caller's mistake
    return value
