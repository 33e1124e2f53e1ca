"""Liveness and readiness checks: ``/healthz`` and ``/readyz``."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from api.context import Context
from api.endpoints.status import respond
from api.middleware.auth import caller_of
from api.wire import schemas
from api.wire.openapi import read_responses
from api.wire.problems import Problem
from reconciler import __version__


class HealthEndpoints:
    """Serves ``/healthz`` and ``/readyz``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def healthz(self) -> Response:
        """Liveness: the process runs and responds, whatever the state of the engine and the files."""
        return respond({"status": "ok", "version": __version__})

    async def readyz(self, request: Request) -> Response:
        """Readiness: observed state is fresh and the files are valid; 503 with the reason otherwise."""
        problem = self._unready()
        if problem is not None:
            if not caller_of(request.scope).role:
                # Without a key the reason is shown, but no content of the files.
                problem.errors = []
            raise problem
        return respond({"status": "ok", "version": __version__})

    def _unready(self) -> Problem | None:
        snapshot, settings = self._context.snapshots.current, self._context.settings
        if self._context.closing.is_set():
            return Problem(503, "going_down", "the daemon is shutting down")
        if not snapshot.serial:
            return Problem(503, "starting", "the daemon has not observed the engine yet")
        if not snapshot.valid:
            detail = "the files on disk are not valid; the last valid state stays in force"
            errors = [mistake._asdict() for mistake in snapshot.errors]
            return Problem(503, "desired_state_invalid", detail, "correct the mistakes in errors", errors)
        if not snapshot.engine.reachable:
            detail = f"the engine does not answer: {snapshot.engine.error or 'no reason known'}"
            return Problem(503, "engine_unreachable", detail, "`service-manager doctor` says what is wrong")
        if settings.age is not None and settings.age() > settings.max_age:
            return Problem(
                503, "stale", f"the last observation is {settings.age():.0f} s old", "see the daemon's log"
            )
        return None

    def register(self, app: FastAPI) -> None:
        """Add the endpoints to the application."""
        app.get("/healthz", **read_responses(schemas.Alive))(self.healthz)
        app.get("/readyz", **read_responses(schemas.Alive, 503))(self.readyz)
