"""Serves the page in which one draws a digit, rotates it, and sees two networks answer.

python -m experiments.demo --port 8000
"""

import functools
import sys
from collections.abc import Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from experiments.rules import InputError, Parser, whole
from experiments.runs import config

TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
DIST = Path(__file__).parents[1] / "demo" / "dist"


# Isolated from other origins, a page may compute in several threads.
HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Handler(SimpleHTTPRequestHandler):
    """Files as they are now, without a line for each."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def end_headers(self):
        """Adds `HEADERS`."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        """Says nothing."""


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("demo", __doc__)
    result.add_argument(
        "--port", type=whole(0, 65535), metavar="N", default=8000, help="0: any free one (default 8000)"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line until it is interrupted; returns the exit code."""
    command = parser()
    options = command.parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        _serve(options.port)
    except InputError as error:
        command.error(str(error))
    return 0


def _serve(port):
    if not (DIST / "index.html").is_file():
        raise InputError(f"{DIST} is not built: cd {DIST.parent} && npm ci && npm run build")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(DIST)))
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; choose another, or 0 for any that is free") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C stops)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
