"""The webhook of pull mode: the host of the repository reports a push.

Needs a signature instead of a key. It only triggers a fetch before the next interval, and nothing in its body
is trusted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from api.endpoints.status import respond
from api.wire.openapi import write_responses
from api.wire.problems import Problem

PATH = "/services/hooks/git"
_OLDEST = 300.0
"""Maximum age of a signed delivery with a timestamp, in seconds; prevents replay."""
_STANDARD = "whsec_"


class HookAnswer(BaseModel):
    """The repository is being fetched."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["fetching"]


class Webhook:
    """Serves the webhook. ``secret`` is shared with the host; ``clock`` returns wall seconds."""

    def __init__(self, secret: bytes, request_fetch: Callable[[], None], clock: Callable[[], float]) -> None:
        self._secret = secret
        self._request_fetch = request_fetch
        self._clock = clock

    async def hook(self, request: Request) -> Response:
        """Fetch desired state from git now, if the delivery is signed with the secret of this daemon.

        Accepts deliveries of GitHub (`X-Hub-Signature-256`), Bitbucket (`X-Hub-Signature` with `sha256=`),
        Gitea and Forgejo (`X-Gitea-Signature`) and GitLab (`X-Gitlab-Token`, or `webhook-signature`). The
        content of the body is ignored.
        """
        body = await request.body()
        signed = is_signed(request.headers, body, self._secret, self._clock())
        if signed is None:
            detail = "the delivery has no supported signature"
            raise Problem(401, "missing_signature", detail, "set the secret at the host of the repository")
        if not signed:
            detail = "the signature does not match the secret of this daemon, or is too old"
            raise Problem(403, "invalid_signature", detail, "compare the secret at both ends")
        self._request_fetch()
        return respond({"status": "fetching"}, 202)

    def register(self, app: FastAPI) -> None:
        """Add the endpoint to the application."""
        route = write_responses({202: HookAnswer}, 401)
        # No Location: the fetch may result in a new generation or not.
        route["responses"][202].pop("headers", None)
        app.post(PATH, status_code=202, **route)(self.hook)


def is_signed(headers: Mapping[str, str], body: bytes, secret: bytes, now: float) -> bool | None:
    """Return whether a delivery is signed with ``secret``, None if it has no supported signature."""
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    if given := headers.get("x-hub-signature-256"):
        return _same(given, f"sha256={digest}")
    for name in ("x-gitea-signature", "x-forgejo-signature", "x-gogs-signature"):
        if given := headers.get(name):
            return _same(given, digest)
    if given := headers.get("webhook-signature"):
        return _standard(headers, given, body, secret, now)
    if given := headers.get("x-gitlab-token"):
        return hmac.compare_digest(given.encode("latin-1", "replace"), secret)
    # Bitbucket's name for the signature that GitHub sends as -256. GitHub's own, under this name, is SHA-1.
    given = headers.get("x-hub-signature", "")
    if given.strip().lower().startswith("sha256="):
        return _same(given, f"sha256={digest}")
    return None


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.strip().lower().encode(), wanted.encode())


def _standard(headers: Mapping[str, str], given: str, body: bytes, secret: bytes, now: float) -> bool:
    """Check a Standard Webhooks signature, over id, time and body; one of several may match."""
    sent, number = headers.get("webhook-timestamp", ""), headers.get("webhook-id", "")
    if not sent.isdecimal() or len(sent) > 15 or abs(now - int(sent)) > _OLDEST:
        return False
    key = secret
    if secret.startswith(_STANDARD.encode()):
        try:
            key = base64.b64decode(secret[len(_STANDARD) :], validate=True)
        except binascii.Error:
            return False
    signature = hmac.new(key, f"{number}.{sent}.".encode() + body, hashlib.sha256).digest()
    wanted = b"v1," + base64.b64encode(signature)
    return any(hmac.compare_digest(one.encode("latin-1", "replace"), wanted) for one in given.split())
