"""Pages for browsers: the dashboard, and the documentation of this API. Static files.

Pages load nothing from other hosts: a machine at the roadside may have no internet access.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from api.context import Context
from api.wire.openapi import leading, read_responses
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

    async def root(self) -> Response:
        """Redirect to the dashboard."""
        # Relative, so that it also works behind a proxy with a path prefix.
        return Response(status_code=307, headers={"location": "services/dashboard"})

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

    async def docs(self) -> Response:
        """API documentation."""
        return HTMLResponse(_DOCS)

    def register(self, app: FastAPI) -> None:
        """Add the pages to the application."""
        described = read_responses(None, 404, media_type="text/html")
        app.get("/", **leading())(self.root)
        app.get("/services/dashboard", **described)(self.dashboard)
        app.get("/docs", include_in_schema=False)(self.docs)
        app.mount("/docs", StaticFiles(directory=SWAGGER, check_dir=False))
        if self._folder is not None:
            # html=True also serves the page at the address with a trailing slash.
            app.mount("/services/dashboard", StaticFiles(directory=self._folder, html=True, check_dir=False))
