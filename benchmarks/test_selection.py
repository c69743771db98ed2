"""What a training would have claimed if its best epoch had been chosen on the test digits, as F-Conv's authors do.

    python -m benchmarks.test_selection --model fconv_mnist_simple --setting 1 --dataset mnist_rot_like ...

Takes the options of `python -m experiments.run` and trains that run: the same weights, chosen on validation digits.
After each of the last `EPOCHS` epochs it tests all seeds as well, and keeps the accuracies in
results/benchmarks/test_selection.json.  The largest of each seed, that of the epoch chosen on validation digits with
them, is what it would have claimed, or a lower bound of it: the epochs before were not tested.  It may be resumed, as
`run` is.
"""

import json
import sys
from pathlib import Path

from experiments import run
from experiments.runs import config
from experiments.training import devices

FILE = Path(__file__).parents[1] / "results" / "benchmarks" / "test_selection.json"
EPOCHS = 3


def merged(before: dict, now: dict, epoch: int, accuracy: list[float]) -> dict:
    """An entry with one more epoch; what another training left, with any other option, goes."""
    same = config.of_older(before.get("config") or {}) == config.of_older(now["config"])
    kept = before.get("test_accuracy", {}) if same else {}
    return {**now, "test_accuracy": kept | {str(epoch): accuracy}}


def main(argv) -> int:
    """Trains one run and writes what the test would have said after its last epochs."""
    options = run.parser().parse_args(argv)
    devices.configure(options.model, config.num_seeds_of(options))
    import numpy as np

    from benchmarks.origin import origin
    from experiments.runs import train
    from experiments.runs.folder import write_json
    from experiments.runs.plan import cell_name
    from experiments.training.loop import Loop

    class Tested(Loop):
        """A loop that tests its seeds after the last epochs, beside what it does."""

        name = folder = ""

        def __init__(self, configs, splits):
            super().__init__(configs, splits)
            self.test = self.programs.place(splits[self.settings[0]]["test"])

        def run(self, *, report, **options):
            def report_and_test(position, num_steps):
                report(position, num_steps)
                if position.step == 0 and position.epoch > self.config.epochs - EPOCHS:
                    self.keep(position.epoch, (self._correct(self.test) / self.test[1].shape[0]).tolist())

            return super().run(report=report_and_test, **options)

        def keep(self, epoch, accuracy):
            setting, model, dataset = self.config.setting, self.config.model, self.config.dataset
            name = Tested.name = f"setting{setting}_{model}_{dataset}"
            Tested.folder = cell_name(setting, model, dataset, self.config.init)
            found = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
            command = f"python -m benchmarks.test_selection {' '.join(argv)}"
            now = {"config": self.config.to_json(), "command": command, "origin": origin()}
            write_json(FILE, found | {name: merged(found.get(name, {}), now, epoch, accuracy)})
            print(f"epoch {epoch}, test digits: {np.mean(accuracy):.4f}", flush=True)

    train.Loop = Tested
    code = run.main(argv)
    if code == 0 and Tested.name:
        _sign(Tested.name, options.output or Path("checkpoints") / Tested.folder)
    return code


def _sign(name, folder):
    """Notes of which weights the accuracies are: no other run's page shows them."""
    from experiments.runs.folder import RESULTS, read_json, write_json

    found = json.loads(FILE.read_text(encoding="utf-8"))
    found[name]["best_digest"] = read_json(folder / RESULTS)["best_digest"]
    write_json(FILE, found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
