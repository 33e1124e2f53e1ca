"""Serves ``/metrics`` for Prometheus, on the API's address and on a second one that serves nothing else.

Rendering takes some milliseconds of the core that also reconciles, and the second address needs no key, so
the text is rendered at most once per second for any number of scrapes. A scrape does not count as a reader
(``SnapshotPublisher.note_reader``): scrapes never stop, and a sample every 30 s is enough for a graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.metrics.counters import Counters
from api.metrics.gauges import Gauges
from api.wire.openapi import read_responses
from reconciler.controller.snapshot import SnapshotPublisher

FRESH = 1.0
"""Seconds for which rendered text is reused."""


class Metrics:
    """All metrics of one daemon. ``clock`` is wall seconds, ``timer`` monotonic seconds."""

    def __init__(
        self,
        snapshots: SnapshotPublisher,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = Counters(snapshots, clock=clock, timer=timer)
        self._timer = timer
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Gauges(snapshots, clock))
        self._registry.register(self.counters)
        ProcessCollector(registry=self._registry)
        self._made: dict[str, tuple[float, bytes]] = {}

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their media type, in the format that the header value ``accept`` prefers."""
        encode, media_type = choose_encoder(accept)
        made, text = self._made.get(media_type, (float("-inf"), b""))
        now = self._timer()
        if now - made >= FRESH:
            text = encode(self._registry)
            if len(self._made) > 4:
                # Formats come from the caller's header, so the cache is bounded; two formats are common.
                self._made.clear()
            self._made[media_type] = (now, text)
        return text, media_type

    async def metrics(self, request: Request) -> Response:
        """Metrics for Prometheus; names start with `service_manager_`.

        Returns text, or OpenMetrics if `Accept` prefers it. The address of `--metrics-listen` serves the same
        without a key.
        """
        text, media_type = self.render(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})

    def register(self, app: FastAPI) -> None:
        """Add the endpoint to the application."""
        app.get("/metrics", **read_responses(None, media_type="text/plain"))(self.metrics)


def metrics_app(metrics: Metrics) -> ASGIApp:
    """Create an application that serves ``/metrics`` and responds 404 to everything else."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await _answer(metrics, scope)(scope, receive, send)

    return serve


def _answer(metrics: Metrics, scope: Scope) -> Response:
    common = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    if scope["path"] != "/metrics":
        return Response("this address serves only /metrics\n", 404, common, "text/plain")
    if scope["method"] not in {"GET", "HEAD"}:
        return Response("use GET\n", 405, {**common, "allow": "GET, HEAD"}, "text/plain")
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    text, media_type = metrics.render(accept.decode("latin-1"))
    return Response(text, headers={**common, "content-type": media_type})
