"""Is the process alive, and is what it says worth anything: two questions for whoever watches it."""

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


class Health:
    """``/healthz`` and ``/readyz`` over one context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def healthz(self) -> Response:
        """The process is alive and answers; it says nothing of the engine or the files."""
        return respond({"status": "ok", "version": __version__})

    async def readyz(self, request: Request) -> Response:
        """What this daemon shows is fresh and the files are valid; 503 with the reason otherwise."""
        problem = self._unready()
        if problem is not None:
            if not caller_of(request.scope).role:
                # That something is wrong is for everybody; what stands in the files is not.
                problem.errors = []
            raise problem
        return respond({"status": "ok", "version": __version__})

    def _unready(self) -> Problem | None:
        snapshot, settings = self._context.snapshots.current, self._context.settings
        if self._context.closing.is_set():
            return Problem(503, "going_down", "the daemon is going down")
        if not snapshot.serial:
            return Problem(503, "starting", "the daemon has not looked at anything yet")
        if not snapshot.valid:
            detail = "the files on disk are broken; the last good state is kept"
            errors = [found._asdict() for found in snapshot.errors]
            return Problem(503, "desired_state_invalid", detail, "mend what errors names", errors)
        if not snapshot.engine.reachable:
            detail = f"the engine does not answer: {snapshot.engine.error or 'no reason known'}"
            return Problem(503, "engine_unreachable", detail, "`service-manager doctor` says what is wrong")
        if settings.age is not None and settings.age() > settings.max_age:
            return Problem(
                503, "stale", f"the last look is {settings.age():.0f} s old", "see the daemon's log"
            )
        return None

    def register(self, app: FastAPI) -> None:
        """Add the endpoints to the application."""
        app.get("/healthz", **read_responses(schemas.Alive))(self.healthz)
        app.get("/readyz", **read_responses(schemas.Alive, 503))(self.readyz)
