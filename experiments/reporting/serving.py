"""A server of the page in demo/dist, on this machine alone."""

import contextlib
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from experiments.rules import InputError

DIST = Path(__file__).parents[2] / "demo" / "dist"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
# Isolated from other origins, a page may compute in several threads.
HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Handler(SimpleHTTPRequestHandler):
    """Serves files uncached, and logs nothing."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def end_headers(self):
        """Adds `HEADERS`."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        """Says nothing."""

    def copyfile(self, source, outputfile):
        """Sends a file; a browser that goes away meanwhile is no error."""
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)


def serve(port: int) -> None:
    """Serves the page until it is interrupted; prints its address.

    Raises:
      InputError: the page is not built, or the port is taken.
    """
    if not (DIST / "index.html").is_file():
        raise InputError(f"{DIST} is not built: cd {DIST.parent} && npm ci && npm run build")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(DIST)))
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; choose another, or 0 for any that is free") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C stops)", flush=True)
        server.serve_forever()
