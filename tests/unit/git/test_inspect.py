"""Links that leave their tree, passwords in messages, and signatures of webhooks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.endpoints.webhook import is_signed
from reconciler.git.command import stderr_message
from reconciler.git.inspect import leads_outside


@pytest.mark.parametrize(
    ("links", "outside"),
    [
        ({"a": "b"}, False),
        ({"a": "./b/../c"}, False),
        ({"a": "/etc/passwd"}, True),
        ({"a": ".."}, True),
        ({"d/a": "../b"}, False),
        ({"d/a": "../../b"}, True),
        ({"a": ".git/config"}, True),
        ({"a": ".GIT/hooks"}, True),
        ({"d/a": "../.git"}, True),
        ({"d/a": ".git"}, False),
        ({"a": "b", "b": "a"}, True),
        ({"a": "b/../../x", "b": "deep"}, True),
        ({"a": "d/up/../x", "d/up": ".."}, True),
        ({"a": "d/up/x", "d/up": ".."}, False),
        ({"a": "d/e/up/../x", "d/e/up": "../.."}, True),
        ({"a": ""}, False),
    ],
)
def test_links_that_lead_outside_are_found(links: dict[str, str], outside: bool) -> None:
    assert leads_outside(next(iter(links)), links) is outside


_NAMES = st.sampled_from(["a", "b", "c", "d"])
_PLACES = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_TARGETS = st.lists(st.sampled_from(["..", ".", "a", "b", "c", "d"]), min_size=1, max_size=5).map("/".join)


@given(st.dictionaries(_PLACES, _TARGETS, min_size=1, max_size=5))
def test_links_are_followed_as_by_the_file_system(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]
) -> None:
    top = tmp_path_factory.mktemp("tree") / "x" / "top"
    top.mkdir(parents=True)
    created: dict[str, str] = {}
    for name, target in links.items():
        place = top / name
        # As in git: a path is either a file or a folder, and a link has no children.
        if any(name.startswith(f"{other}/") or other.startswith(f"{name}/") for other in created):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        created[name] = target
    for name in created:
        try:
            real = Path(os.path.realpath(top / name, strict=True))
        except OSError:
            continue
        if not real.is_relative_to(top):
            assert leads_outside(name, created)


def test_messages_leave_out_passwords_in_urls() -> None:
    message = stderr_message(
        b"fatal: unable to access 'https://ann:hunter2@host/x.git/': no\nhint: try again\n"
    )
    assert message == "fatal: unable to access 'https://host/x.git/': no"


def test_webhook_signatures_are_verified() -> None:
    secret, body = b"It's a Secret to Everybody", b"Hello, World!"
    # The example of GitHub's own documentation.
    good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert is_signed({"x-hub-signature-256": good}, body, secret, 0.0) is True
    assert is_signed({"x-hub-signature-256": good}, body + b"!", secret, 0.0) is False
    assert is_signed({"x-hub-signature-256": good[7:]}, body, secret, 0.0) is False
    assert is_signed({"x-hub-signature": good}, body, secret, 0.0) is True
    assert is_signed({"x-hub-signature": good}, body + b"!", secret, 0.0) is False
    assert is_signed({"x-hub-signature": "sha1=" + good[7:47]}, body, secret, 0.0) is None
    assert is_signed({"x-hub-signature": "sha1=0", "x-hub-signature-256": good}, body, secret, 0.0) is True
    assert is_signed({"x-gitea-signature": good[7:]}, body, secret, 0.0) is True
    assert is_signed({"x-gitlab-token": "It's a Secret to Everybody"}, body, secret, 0.0) is True
    assert is_signed({"x-gitlab-token": "\xff"}, body, secret, 0.0) is False
    assert is_signed({}, body, secret, 0.0) is None
    # The example of the specification of Standard Webhooks.
    standard = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,unknown v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    key, sent = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    assert is_signed(standard, sent, key, 1614265330.0) is True
    assert is_signed(standard, sent, key, 1614265330.0 + 301) is False
    assert is_signed(standard | {"webhook-id": "other"}, sent, key, 1614265330.0) is False
