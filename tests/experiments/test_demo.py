"""The page in a browser: it serves, prepares and rotates as the programs do, and answers as JAX does."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import fconv_jax
from benchmarks import browser
from experiments import demo
from experiments.data.sources import read_embedded
from experiments.reporting import serving
from experiments.runs.best import rotated
from experiments.settings import DATASETS
from tests.experiments import helpers

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "demo"
DATA = json.loads((PAGE / "networks" / "data.json").read_text())
NPM, NODE = shutil.which("npm"), shutil.which("node")
CLOSE = 1e-5  # of a probability: the order of float32 sums
TWO_DIGITS = 0.002  # of 1,000: another machine's sums
PAGE_WEIGHT = 3e6  # bytes, without onnxruntime-web
MILLISECONDS = 50  # from pixels to both answers


def test_a_page_that_is_not_built_is_refused_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(serving, "DIST", tmp_path / "demo" / "dist")
    says = "npm ci && npm run build"
    helpers.assert_refused(capfd, tmp_path, lambda *argv: helpers.call(demo.main, *argv), says=says)


def test_a_port_that_is_taken_is_refused_in_one_line(tmp_path, monkeypatch, capfd):
    (tmp_path / "index.html").touch()
    monkeypatch.setattr(serving, "DIST", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = ["--port", taken.getsockname()[1]]
        says = "choose another"
        helpers.assert_refused(capfd, tmp_path, lambda *argv: helpers.call(demo.main, *argv), *arguments, says=says)


def test_the_curves_are_those_of_the_packaged_seeds():
    for name, curve in DATA["curves"].items():
        source = fconv_jax.pretrained.read_config(curve["weights"])["source"]
        at = dict(zip(curve["angle"], curve["accuracy"], strict=True))
        assert abs(at[0] - source["test_accuracy"]) <= TWO_DIGITS, name
        assert source["setting"] == 1, name  # trained, chosen and tested on upright digits
    plain, invariant = (DATA["curves"][name]["accuracy"] for name in ("plain", "invariant"))
    assert min(plain) < 0.2 < 0.9 < min(invariant)


def test_the_digits_to_pick_are_the_first_of_each_class():
    images, labels = read_embedded(DATASETS["mnist_5k"])["test"]
    for label, sample in enumerate(DATA["samples"]):
        assert sample["label"] == label
        np.testing.assert_array_equal(sample["pixels"], images[labels == label][0].reshape(-1))


def in_node(code):
    """What a module in the page's folder prints, as JSON."""
    if NODE is None:
        pytest.skip("node is not installed")
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", code], cwd=PAGE / "src", capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_page_rotates_as_the_evaluation_does():
    angles, image = [0, 17, 45, 90, -133, 180], np.array(DATA["samples"][3]["pixels"], np.uint8)
    found = in_node(f"""
        import {{ rotate }} from "./rotate.js";
        const image = Float32Array.from({image.tolist()}, (level) => level / 255);
        const levels = (angle) => Array.from(rotate(image, 28, angle), (level) => Math.round(level * 255));
        console.log(JSON.stringify({angles}.map(levels)));
    """)
    for angle, levels in zip(angles, found, strict=True):
        expected = rotated(image.reshape(1, 28, 28, 1), angle).reshape(-1).astype(int)
        differs = np.abs(np.array(levels) - expected)
        assert differs.max() <= 1, angle  # a half may be rounded either way
        assert np.count_nonzero(differs) <= 2, angle
        assert angle == 0 or np.abs(np.array(levels) - found[0]).max() > 100


def test_the_page_prepares_as_mnist_was():
    drawings = {
        "bar": [[[0.1, 0.9], [0.1, 0.2]]],
        "ell": [[[0.4, 0.4], [0.4, 0.6], [0.5, 0.6]]],
        "two": [[[0.2, 0.1], [0.3, 0.9]], [[0.5, 0.5], [0.9, 0.5]]],
        "dot": [[[0.97, 0.02]]],
    }
    found = in_node(f"""
        import {{ prepare }} from "./prepare.js";
        const points = (line) => line.map(([x, y]) => ({{ x, y }}));
        const all = Object.values({json.dumps(drawings)}).map((lines) => Array.from(prepare(lines.map(points))));
        console.log(JSON.stringify([...all, Array.from(prepare([]))]));
    """)
    *images, empty = (np.array(pixels).reshape(28, 28) for pixels in found)
    assert not empty.any()
    for name, image in zip(drawings, images, strict=True):
        rows, columns = (np.flatnonzero((image > 0).any(axis)) for axis in (1, 0))
        longest = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longest == (20 if name != "dot" else 3), name
        assert image.max() == 1, name
        centre = [float((image.sum(1 - axis) * np.arange(28)).sum() / image.sum()) for axis in (0, 1)]
        assert np.abs(np.array(centre) - 14).max() <= 0.5 + 1e-6, (name, centre)


@contextlib.contextmanager
def opened():
    """README's command, as it stands there: builds the page and serves it; its address."""
    with socket.socket() as sock:
        if sock.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 is taken")
    command = re.search(r"^\(cd demo .*experiments\.demo$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[0]
    python = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        ["bash", "-c", command], cwd=ROOT, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        assert server.stderr is not None
        printed = []
        for line in server.stdout:
            printed.append(line)
            if line.startswith("http"):
                break
        else:
            errors = server.stderr.read()
            if "npm error network" in errors:
                pytest.skip("npm reaches no registry")
            pytest.fail("".join(printed) + errors)
        try:
            yield line.split()[0]
        finally:
            os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 130


@pytest.mark.slow
@pytest.mark.skipif(NPM is None, reason="npm is not installed")
def test_readmes_command_builds_and_serves_the_page_and_a_browser_shows_what_jax_answers(tmp_path):
    with opened() as address:
        check_files(address)
        if browser.chromium() is None:
            pytest.skip("the page is served; Chromium is not installed (Debian: apt-get install chromium)")
        check_browser(browser.drive(address, tmp_path))


def check_files(address):
    """Light, with the types that browsers ask for, isolated, and nothing from beside the page."""
    files = [path for path in serving.DIST.rglob("*") if path.is_file() and path.parent.name != "ort"]
    assert sum(path.stat().st_size for path in files) < PAGE_WEIGHT
    for name, kind in {"main.js": "text/javascript", "ort/ort-wasm-simd-threaded.wasm": "application/wasm"}.items():
        with urllib.request.urlopen(address + name) as answer:
            assert answer.headers["Content-Type"] == kind
            assert serving.HEADERS.items() <= dict(answer.headers).items()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(address + "../package.json")


def check_browser(found):
    """Answers, what is written beside them, the keyboard, a phone's width, and that nothing is asked of a network."""
    assert not found["problems"]
    assert not found["outside"]
    assert not found["late"]  # without a network it goes on
    assert found["width"] <= found["phone"]
    assert found["milliseconds"]["median"] < MILLISECONDS
    seen = found["seen"]
    assert seen.pop("empty")["answers"] is None
    expected = browser.expected(seen)
    for row, (what, shown) in enumerate(seen.items()):
        for name, answer in shown["answers"].items():
            np.testing.assert_allclose(answer, expected[name][row], rtol=0, atol=CLOSE, err_msg=f"{what} {name}")
            assert shown["texts"][name] == str(np.argmax(expected[name][row])), what
    assert np.abs(expected["plain"] - expected["invariant"]).max() > 0.1  # which of them answers is no matter of chance
    assert seen["stroke"]["texts"] | {"here": ""} == {"plain": "7", "invariant": "7", "here": ""}
    assert seen["rotated_stroke"]["texts"]["invariant"] == "7" != seen["rotated_stroke"]["texts"]["plain"]
    assert seen["keyboard"]["angle"] == 177
    quarter = seen["sample_3_at_90"]["answers"]["invariant"]
    np.testing.assert_allclose(quarter, seen["sample_3_at_0"]["answers"]["invariant"], rtol=0, atol=CLOSE)
    image = np.array(DATA["samples"][3]["pixels"], np.uint8).reshape(1, 28, 28, 1)
    levels = np.array(seen["sample_3_at_90"]["pixels"]) * 255  # clockwise, which is rot90 three times
    np.testing.assert_allclose(levels, np.rot90(image[0, ..., 0], -1).reshape(-1), atol=1e-3)
