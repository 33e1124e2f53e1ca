"""Builds the FastAPI application from everything under ``api``. Importing it has no side effects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api.context import CapturedLogReader, Context, LogReader, Preview, Settings
from api.endpoints.audit import AuditEndpoints, AuditSource, RefusalRecorder, publish_from_thread
from api.endpoints.events import Broadcast
from api.endpoints.health import HealthEndpoints
from api.endpoints.history import GenerationHistory, HistoryEndpoints
from api.endpoints.lifecycle import LifecycleEndpoints
from api.endpoints.logs import LogEndpoints
from api.endpoints.pages import PageEndpoints
from api.endpoints.session import SessionEndpoints
from api.endpoints.status import StatusEndpoints
from api.endpoints.webhook import Webhook
from api.metrics.registry import Metrics
from api.middleware.auth import Auth
from api.middleware.forwarded import ForwardedMiddleware
from api.middleware.metrics import MetricsMiddleware
from api.middleware.security import SecurityMiddleware
from api.middleware.strict_query import StrictRoute
from api.wire import openapi, problems
from api.wire.views import StatusCache
from reconciler import __version__
from reconciler.audit.event_stream import AuditEventStream
from reconciler.auth.keys import KeyRing
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.generations.writes import Writer

__all__ = ["Preview", "Settings", "close_streams", "create_app"]


def create_app(
    *,
    writer: Writer,
    snapshots: SnapshotPublisher,
    settings: Settings,
    preview: Preview | None = None,
    logs: LogReader | None = None,
    captured_logs: CapturedLogReader | None = None,
    metrics: Metrics | None = None,
    keys: KeyRing | None = None,
    audit: AuditSource | None = None,
    events: AuditEventStream | None = None,
    history: GenerationHistory | None = None,
    webhook: Webhook | None = None,
) -> FastAPI:
    """Create the application. Reads come from ``snapshots``, edits go to ``writer``.

    Without ``preview`` there is no ``POST /services/plan``, without ``logs`` no ``GET /services/logs``,
    without ``metrics`` no ``GET /metrics``, without ``audit`` no ``GET /services/audit``, without ``history``
    no history and no rollback, without ``webhook`` no webhook; without ``keys`` no request needs a key.
    ``events`` gets an audit event for each refused request and each sign-in.

    Call ``close_streams`` before stopping the server: the server waits for open responses, and event streams
    never end on their own.
    """
    auth = Auth(keys)
    context = Context(
        writer=writer,
        snapshots=snapshots,
        settings=settings,
        preview=preview,
        logs=logs,
        captured_logs=captured_logs,
        may_read=auth.is_valid,
    )
    cache = StatusCache()
    broadcast = Broadcast(context, cache)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if audit is not None:
            audit.subscribe(publish_from_thread(asyncio.get_running_loop(), broadcast.send))
        yield
        close_streams(app)
        await broadcast.aclose()

    app = FastAPI(
        title="Service Manager",
        version=__version__,
        description=openapi.DESCRIPTION,
        openapi_tags=[{"name": openapi.TAG, "description": "Change desired state, follow its progress."}],
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.context = context
    app.state.broadcast = broadcast
    app.router.route_class = StrictRoute
    # The framework's redirects are absolute: behind TLS they would send a key over plain HTTP.
    app.router.redirect_slashes = False
    events = events or AuditEventStream()
    app.add_middleware(
        SecurityMiddleware,
        host=settings.host,
        own=settings.own,
        names=settings.names,
        authorise=auth.authorise,
        on_refusal=RefusalRecorder(context, events),
    )
    app.add_middleware(ForwardedMiddleware, proxies=settings.proxies, root_path=settings.root_path)
    if metrics is not None:
        # The last one added is the outermost, so requests that security refuses are counted too.
        app.add_middleware(MetricsMiddleware, counters=metrics.counters)
        metrics.register(app)
    problems.add_handlers(app)
    openapi.customise_openapi(app, auth, snapshots)
    parts = (
        StatusEndpoints(context, cache, broadcast),
        LifecycleEndpoints(context),
        LogEndpoints(context),
        HealthEndpoints(context),
        PageEndpoints(context),
    )
    for part in parts:
        part.register(app)
    SessionEndpoints(auth, settings.clock, events).register(app)
    if audit is not None:
        AuditEndpoints(context, audit).register(app)
    if history is not None:
        HistoryEndpoints(context, history).register(app)
    if webhook is not None:
        webhook.register(app)
    return app


def close_streams(app: FastAPI) -> None:
    """End event streams and long polls now, and refuse new ones. Call it in the event loop."""
    app.state.context.closing.set()
    app.state.broadcast.close()
