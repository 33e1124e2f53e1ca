"""Pages for browsers: the dashboard, and the documentation of this API. Static files.

Pages load nothing from other hosts: a machine at the roadside may have no internet access.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from api.context import Context
from api.middleware.forwarded import forwarded
from api.wire.openapi import read_responses, redirect_responses
from api.wire.problems import Problem

SWAGGER = Path(__file__).parents[1] / "vendor" / "swagger-ui"

_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Service Manager: API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""


class PageEndpoints:
    """Serves the pages."""

    def __init__(self, context: Context) -> None:
        self._folder = context.settings.dashboard

    async def root(self, request: Request) -> Response:
        """Redirect to the dashboard."""
        # Relative without a known prefix, so that it also works behind a proxy that takes one away.
        return _lead("/services/dashboard" if forwarded(request.scope).prefix else "services/dashboard")

    async def dashboard(self) -> Response:
        """The web dashboard."""
        index = self._folder / "index.html" if self._folder else None
        if index is None or not index.is_file():
            raise Problem(
                404,
                "no_dashboard",
                "no dashboard is installed with this daemon",
                "`service-manager watch` shows the same in a terminal; /docs shows the API",
            )
        return FileResponse(index)

    async def index(self) -> Response:
        """Redirect to the address of the page."""
        return _lead("../dashboard")

    async def docs(self) -> Response:
        """API documentation."""
        return HTMLResponse(_DOCS)

    async def docs_index(self) -> Response:
        """Redirect to the address of the page."""
        return _lead("../docs")

    def register(self, app: FastAPI) -> None:
        """Add the pages to the application."""
        described = read_responses(None, 404, media_type="text/html")
        app.get("/", **redirect_responses())(self.root)
        app.get("/services/dashboard", **described)(self.dashboard)
        app.get("/docs", include_in_schema=False)(self.docs)
        app.get("/docs/", include_in_schema=False)(self.docs_index)
        app.mount("/docs", StaticFiles(directory=SWAGGER, check_dir=False))
        if self._folder is not None:
            # The page's links are relative to its own address, so it has only one.
            for path in ("/services/dashboard/", "/services/dashboard/index.html"):
                app.get(path, include_in_schema=False)(self.index)
            app.mount("/services/dashboard", StaticFiles(directory=self._folder, check_dir=False))


def _lead(location: str) -> Response:
    return Response(status_code=307, headers={"location": location})
