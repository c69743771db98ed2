"""The page of demo/ in Chromium: milliseconds from pixels to both answers, and how far these are from JAX's.

    python -m benchmarks.browser [FOLDER]     # after `npm ci && npm run build` in demo/; screenshots go to the folder

Served as `python -m experiments.demo` serves it (the page is isolated, and computes in several threads) and as any
server of static files does (one thread), interleaved.  Needs Node.js and Chromium.
"""

import contextlib
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import numpy as np

import fconv_jax as fc
from experiments.reporting import serving

PAGE = Path(__file__).parents[1] / "demo"
ROUNDS = 3


class _Static(serving.Handler):
    """Any server of static files: without the headers of ours."""

    end_headers = SimpleHTTPRequestHandler.end_headers


@contextlib.contextmanager
def served(handler: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    """Serves the page that is built; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(serving.DIST)))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def chromium() -> str | None:
    """The path of a Chromium or Chrome."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def drive(address: str, folder: str | Path) -> dict:
    """What `demo/drive.mjs` saw of the page; its screenshots go to `folder`."""
    environment = {**os.environ, "CHROMIUM": chromium() or "chromium"}
    done = subprocess.run(
        ["node", "drive.mjs", address, folder], cwd=PAGE, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def expected(seen: dict) -> dict[str, np.ndarray]:
    """JAX's probabilities `[image, 10]` of both networks for the pixels that the page showed."""
    curves = json.loads((PAGE / "networks" / "data.json").read_text())["curves"]
    images = np.array([shown["pixels"] for shown in seen.values()], np.float32).reshape(-1, 28, 28, 1)
    models = {name: fc.from_pretrained(curve["weights"]) for name, curve in curves.items()}
    return {name: np.asarray(jax.nn.softmax(model(images))) for name, model in models.items()}


def main() -> None:
    """Prints a line for each way to serve."""
    milliseconds: dict[str, list[float]] = {"experiments.demo": [], "another server": []}
    largest = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = sys.argv[1] if len(sys.argv) > 1 else scratch
        for _ in range(ROUNDS):
            for name, handler in zip(milliseconds, (serving.Handler, _Static), strict=True):
                with served(handler) as address:
                    found = drive(address, folder)
                milliseconds[name].append(found["milliseconds"]["median"])
                answered = {what: shown for what, shown in found["seen"].items() if shown["answers"]}
                for network, values in expected(answered).items():
                    answers = [shown["answers"][network] for shown in answered.values()]
                    largest = max(largest, float(np.abs(values - np.array(answers)).max()))
    for name, times in milliseconds.items():
        print(f"served by {name}: {statistics.median(times):.1f} ms from pixels to both answers (medians {times})")
    weight = sum(
        path.stat().st_size for path in serving.DIST.rglob("*") if path.is_file() and path.parent.name != "ort"
    )
    print(
        f"probabilities differ from JAX's by {largest:.1e}; the page is {weight / 1e6:.2f} MB without onnxruntime-web"
    )


if __name__ == "__main__":
    main()
