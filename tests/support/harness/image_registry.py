"""A read-only image registry on loopback with what a pull needs.

Its images are for several platforms, like those of public registries: a tag names an index, the index a
manifest for each platform, the manifest a configuration and layers. Which of these digests an engine shows as
the id of the image depends on its image store (PITFALLS row 5).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FOREIGN = "riscv64"
_HELLO = b"\x16"
"""The first byte of a TLS client; after a plain HTTP response an engine retries without."""


class Blob(NamedTuple):
    """Content with a digest and a media type."""

    kind: str
    content: bytes

    @property
    def digest(self) -> str:
        """Its digest."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    def entry(self, **more: Any) -> dict[str, Any]:
        """Its descriptor."""
        return {"mediaType": self.kind, "digest": self.digest, "size": len(self.content), **more}


class ImageRegistry:
    """``with Registry() as registry:``; ``name`` is the prefix of image names."""

    def __init__(self) -> None:
        self._blobs: dict[str, Blob] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> ImageRegistry:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def name(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def tag(self, tag: str, tree: bytes, labels: Mapping[str, str], foreign: Mapping[str, str]) -> None:
        """Point this tag at an image of one layer, the ``tree`` (tar), with these labels.

        ``foreign`` are the labels of the same tag for another platform: changing them changes the index
        and not the image for this platform.
        """
        layer = Blob(_LAYER, gzip.compress(tree, compresslevel=1, mtime=0))
        contents = f"sha256:{hashlib.sha256(tree).hexdigest()}"
        entries = []
        for architecture, its in ((_ARCHITECTURES[platform.machine()], labels), (_FOREIGN, foreign)):
            config = _json(
                _CONFIG,
                architecture=architecture,
                os="linux",
                config={"Cmd": ["sleep", "100000"], "Labels": dict(its)},
                rootfs={"type": "layers", "diff_ids": [contents]},
            )
            manifest = _json(
                _MANIFEST, schemaVersion=2, mediaType=_MANIFEST, config=config.entry(), layers=[layer.entry()]
            )
            entries.append(manifest.entry(platform={"architecture": architecture, "os": "linux"}))
            self._blobs |= {blob.digest: blob for blob in (layer, config, manifest)}
        index = _json(_INDEX, schemaVersion=2, mediaType=_INDEX, manifests=entries)
        self._blobs |= {index.digest: index, tag: index}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        blobs = self._blobs

        class Handler(BaseHTTPRequestHandler):
            protocol_version: ClassVar[str] = "HTTP/1.1"

            def handle(self) -> None:
                if self.rfile.peek(1)[:1] == _HELLO:
                    self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                    return
                super().handle()

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _answer(self, *, body: bool) -> None:
                blob = blobs.get(self.path.rpartition("/")[2])
                if self.path == "/v2/":
                    blob = Blob("application/json", b"{}")
                content = blob.content if blob else b""
                self.send_response(200 if blob else 404)
                self.send_header("Content-Length", str(len(content)))
                if blob:
                    self.send_header("Content-Type", blob.kind)
                    self.send_header("Docker-Content-Digest", blob.digest)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        return Handler


def _json(kind: str, **value: Any) -> Blob:
    return Blob(kind, json.dumps(value).encode())
