"""Two epochs of the report's networks, two seeds, end where those of version 0.1 (commit df6a010) did.

A faster convolution sums in another order: that moves the loss in its sixth digit and now and then a single image.
"""

import json
import subprocess
import sys

import pytest

EXPECTED = {  # setting and model, options: test accuracies, losses of the second epoch
    ("1", "lenet", "--epochs 2 --num-seeds 2"): ([0.769, 0.778], [1.9235257932, 1.8885322462]),
    ("4", "lenet_fconv", "--epochs 2 --num-seeds 2"): ([0.567, 0.4784], [1.8192156069, 2.1204017003]),
}
ONE_IMAGE_IN_500 = 0.002
LOSS = 1e-3  # relative: what rounding has grown to after up to 138 steps


@pytest.mark.slow
@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case[1])
def test_two_epochs(case, tmp_path):
    setting, model, options = case
    command = [sys.executable, "-m", "experiments.run", "--setting", setting, "--model", model, *options.split()]
    command += ["--dataset", "mnist_5k", "--data-dir", tmp_path / "data", "--output", tmp_path / "run"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    accuracies, losses = EXPECTED[case]
    assert results["test_accuracy"] == pytest.approx(accuracies, abs=ONE_IMAGE_IN_500)
    assert [losses[-1] for losses in results["train_loss"]] == pytest.approx(losses, rel=LOSS)
