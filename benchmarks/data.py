"""Preparing and loading setting 4 at full size against rotating one image after another with SciPy.

    python -m benchmarks.data --files DIR

70,000 images in MNIST's format become 350,000: each is kept, four rotated copies follow it. Without `--files` the
5,000 embedded digits stand in, 14 times each. SciPy rotates a sample; its time is scaled to all 280,000 copies. The
rounds are interleaved, ratios are medians over rounds. Writes JSON and prints a table.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.ndimage

from experiments.data import rotation, sources
from experiments.data.files import placed_directory, placed_files
from experiments.data.rotation import copy_angles, rotated_copies
from experiments.runs.results import commit
from experiments.settings import DATASETS

NUM_COPIES = 280_000
NUM_LOADED = 275_000
BLOCK = 4096

# What each measured process does, in an interpreter of its own so that its memory is its own. It prints seconds and
# megabytes. Preparing loads no split, so its time is that of preparing alone.
PROCESS = """
import sys, time
start = time.perf_counter()
from experiments.data import load
load("fashion_mnist", 4, data_dir=sys.argv[1], splits=sys.argv[2:])
seconds = time.perf_counter() - start
import resource
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
"""


def main() -> None:
    """Measures in child processes and writes what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="folder with the four files of Fashion-MNIST or their like")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=10_000, help="images that SciPy rotates in each round")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/data.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        place_files(root, arguments.files)
        rounds = [measure_round(root, arguments.sample) for _ in range(arguments.rounds)]
    result = {
        "command": " ".join(["python -m benchmarks.data", *sys.argv[1:]]),
        "source": "files of the user" if arguments.files else "5,000 embedded digits, 14 times each",
        "machine": machine(),
        "commit": commit(),
        "versions": {name: version(name) for name in ("numpy", "scipy", "tensorflow-datasets", "array_record")},
        "python": platform.python_version(),
        "rounds": rounds,
        "summary": summarise(rounds),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def place_files(root: Path, files: Path | None) -> None:
    """Place four files in MNIST's format below the data directory `root`."""
    folder = placed_directory(root, "fashion_mnist")
    folder.mkdir(parents=True)
    if files:
        for path in placed_files(files, "fashion_mnist").values():
            shutil.copy(path, folder)
        return
    images, labels = map(np.concatenate, zip(*sources.read_embedded(DATASETS["mnist_5k"]).values(), strict=True))
    images, labels = np.concatenate([images] * 14), np.concatenate([labels] * 14)
    order = np.random.default_rng(0).permutation(len(images))
    for names, part in (
        ((sources.TRAIN_IMAGES, sources.TRAIN_LABELS), order[:60_000]),
        ((sources.TEST_IMAGES, sources.TEST_LABELS), order[60_000:]),
    ):
        for name, array in zip(names, (images[part], labels[part]), strict=True):
            header = b"\x00\x00\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / name).write_bytes(header + array.tobytes())


def measure_round(root: Path, sample: int) -> dict[str, float]:
    """Measure everything once: seconds, and megabytes where the name says so."""
    dataset = DATASETS["fashion_mnist"]
    source = sources.read_official(dataset, placed_files(placed_directory(root, dataset.name), dataset.name), "")
    images = np.concatenate([images for images, _ in source.values()])
    angles = copy_angles(0, dataset.name, "train", len(images))
    # SciPy before and after ours, so that a change of the machine's speed in between meets both.
    half = sample // 2
    scipy_seconds = time_scipy(images[:half], angles[:half, 0])
    rotation.rotation_matrix.cache_clear()
    start = time.perf_counter()
    for first in range(0, len(images), BLOCK):
        rotated_copies(images[first : first + BLOCK], angles[first : first + BLOCK])
    ours = time.perf_counter() - start
    scipy_seconds += time_scipy(images[half : 2 * half], angles[half : 2 * half, 0])
    shutil.rmtree(root / "rotated_mnist", ignore_errors=True)
    prepare, prepare_megabytes = run_process(root)
    load, load_megabytes = run_process(root, "train")
    scipy_seconds += time_scipy(images[:half], angles[:half, 1])
    return {
        "scipy_rotate": scipy_seconds / (3 * half) * NUM_COPIES,
        "rotate": ours,
        "prepare": prepare,
        "prepare_megabytes": prepare_megabytes,
        "load": load,
        "load_megabytes": load_megabytes,
        "load_average": os.getloadavg()[0],
    }


def time_scipy(images: np.ndarray, angles: np.ndarray) -> float:
    """Seconds that SciPy takes for one image after another, in the report's way: pixels / 255 in float32."""
    start = time.perf_counter()
    for image, angle in zip(images, angles, strict=True):
        scipy.ndimage.rotate(image.astype(np.float32) / 255, angle, reshape=False, cval=0)
    return time.perf_counter() - start


def run_process(root: Path, *splits: str) -> tuple[float, float]:
    """Seconds and peak megabytes of a process that prepares, if need be, and loads `splits`."""
    command = [sys.executable, "-c", PROCESS, str(root), *splits]
    seconds, megabytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(megabytes)


def summarise(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over rounds, of the figures and of the ratios within each round."""
    summary = {name: statistics.median(single[name] for single in rounds) for name in rounds[0]}
    for name in ("rotate", "prepare"):
        summary[f"scipy_over_{name}"] = statistics.median(single["scipy_rotate"] / single[name] for single in rounds)
    return summary


def machine() -> dict[str, str | int | None]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"processor": model, "cores": os.cpu_count(), "system": platform.system()}


def table(result: dict) -> str:
    """The summary as a table in Markdown."""
    s = result["summary"]
    rows = [
        (f"SciPy, {NUM_COPIES:,} images one by one", f"{s['scipy_rotate']:.1f} s", "1"),
        (f"rotating {NUM_COPIES:,} images", f"{s['rotate']:.2f} s", f"{s['scipy_over_rotate']:.1f}"),
        ("whole preparation of setting 4 (350,000 written)", f"{s['prepare']:.1f} s", f"{s['scipy_over_prepare']:.1f}"),
        (f"loading the {NUM_LOADED:,} training images", f"{s['load']:.1f} s", ""),
        ("peak memory while preparing", f"{s['prepare_megabytes']:.0f} MB", ""),
        ("peak memory while loading", f"{s['load_megabytes']:.0f} MB", ""),
    ]
    head = ["| what | median | times faster than SciPy |", "|---|---|---|"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


if __name__ == "__main__":
    main()
