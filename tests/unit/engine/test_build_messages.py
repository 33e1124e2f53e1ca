"""The reason of a failed build, without the builder's progress."""

from __future__ import annotations

from reconciler.engine.compose.build_messages import build_messages


def test_a_failed_step_gives_its_output_and_the_reason() -> None:
    lines = [
        "#4 [1/2] FROM base",
        "#5 [2/2] RUN make",
        "#5 0.210 make: not found",
        "#5 ERROR: executor failed running",
        "------",
        " > [2/2] RUN make:",
        "#5 0.210 make: not found",
        "------",
        'failed to solve: rpc error: code = Unknown desc = process "make" did not complete: exit code: 127',
    ]
    assert build_messages(lines) == ["make: not found", 'process "make" did not complete: exit code: 127']


def test_an_engine_without_named_contexts_is_the_reason() -> None:
    lines = [
        "#8 transferring context: 2B done",
        "failed to solve: rpc error: code = Unknown desc = failed to solve with frontend dockerfile.v0: "
        "unsupported frontend capability moby.buildkit.frontend.contexts",
    ]
    (message,) = build_messages(lines)
    assert "additional_contexts" in message
    assert "buildx" in message


def test_other_output_is_kept() -> None:
    assert build_messages(["#1 DONE 0.0s", "no such file"]) == ["no such file"]
    assert build_messages(["#1 DONE 0.0s"]) == ["#1 DONE 0.0s"]
    assert build_messages([]) == []
