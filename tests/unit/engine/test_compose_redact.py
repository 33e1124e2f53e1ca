"""Secrets stay out of Compose's error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.engine.compose.error_locations import mistakes_in

SECRET = "PLANTED"
MESSAGES = [
    rf'failed to read /d/web.env: line 3: unexpected character "\"" in variable name "BAD LINE \"{SECRET}"',
    f'failed to read /d/web.env: line 3: unexpected character "$" in variable name "{SECRET}"',
    f'failed to read /d/.env: line 3: unterminated quoted value "{SECRET}',
    f"failed to read /d/.env: line 3: key cannot contain a space: {SECRET}",
    f'failed to read /d/web.env: Invalid template: "{SECRET}${{"',
    "invalid interpolation format for services.web.environment.PASSWORD.\n"
    f'You may need to escape any $ with another $.\nInvalid template: "a$\\"{SECRET}"',
    f'invalid interpolation format for services.web.environment.PASSWORD: "{SECRET}$"; escape it',
    f"yaml: line 3: cannot unmarshal !!str `{SECRET}` into int",
    f"invalid environment variable: ={SECRET}",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_values_are_left_out(message: str) -> None:
    (mistake,) = mistakes_in([message], [Path("/d/compose.yaml")])
    assert SECRET not in str(mistake)
    assert mistake.message
    if "line 3" in message:
        assert mistake.line == 3
    if "/web.env" in message:
        assert mistake.path.endswith("web.env")
