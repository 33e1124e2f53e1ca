"""The common part of the programs built here, which are stand-ins for the real ones.

Each runs until SIGTERM and, given a PORT, answers health checks and Prometheus. To ship a real program,
replace `<service>/main.py`, or set the service's build context to the program's repository.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def run(service: str) -> None:
    """Run as `service` until SIGTERM."""
    # Process 1 ignores SIGTERM without a handler, and every stop would last the whole grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port = os.environ.get("PORT")
    print(f"{service}: started" + (f" on port {port}" if port else ""), flush=True)
    if port:
        ThreadingHTTPServer(("", int(port)), handler(service)).serve_forever()
    while True:
        signal.pause()


def handler(service: str) -> type[BaseHTTPRequestHandler]:
    """Serve the two pages that every service has."""
    pages = {"/health": "ok\n", "/metrics": f'alpr_service_info{{service="{service}"}} 1\n'}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.end_headers()
            self.wfile.write((page or "not found\n").encode())

        def log_message(self, *_: object) -> None:
            """Do not log health checks and scrapes."""

    return Handler
