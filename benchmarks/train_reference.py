"""Train the report's PyTorch reference on our data with the report's protocol, for comparison with our own results.

    python benchmarks/train_reference.py --reference DIR --model lenet_fconv --setting 1,3 --output FILE.json

DIR holds the reference as published (`F_conv.py`, `model/model_LeNet.py`, `model/model_AlexNet.py`). It is run as it
is: its networks, its initial weights. What it does not fix comes from `experiments`: the images, the epochs, the batch.
Settings that train on the same images (1 and 3, 2 and 4) share one training; each keeps its own best epoch. The file
holds a list `results`, one entry for each setting, with the fields of a run's `results.json`.
"""

import argparse
import importlib
import json
import math
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.data import DataError, Split, load
from experiments.settings import DATASETS, SETTINGS

NETWORKS: dict[str, tuple[str, str, dict[str, bool]]] = {
    "lenet": ("model.model_LeNet", "LeNet", {}),
    "lenet_fconv": ("model.model_LeNet", "F_Conv_LeNet", {}),
    "alexnet": ("model.model_AlexNet", "AlexNet", {"init_weights": True}),
    "alexnet_fconv": ("model.model_AlexNet", "F_Conv_AlexNet", {"init_weights": True}),
}
"""Name here -> module, class and arguments there, as the reference's own training script builds them."""

FAILED_BELOW = 0.2
EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Tensors:
    """One split for PyTorch: `images` float32 `[n, 1, 28, 28]` in 0..1, `labels` int64 `[n]`."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, split: Split) -> "Tensors":
        """Pixels / 255, nothing else."""
        images = torch.from_numpy(split.images.copy()).reshape(-1, 1, 28, 28)
        return cls(images.float().div(255), torch.from_numpy(split.labels.copy()).long())


@dataclass
class Best:
    """What one setting keeps of one seed: its validation curve and the earliest of the best epochs."""

    validation: Tensors
    test: Tensors
    curve: list[float] = field(default_factory=list)
    accuracy: float = -1.0
    epoch: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def update(self, network: nn.Module) -> None:
        """Validates after an epoch and keeps a copy of the weights if none before was as good."""
        accuracy = (predict(network, self.validation.images) == self.validation.labels).double().mean().item()
        self.curve.append(accuracy)
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, len(self.curve)
            self.state = {name: value.clone() for name, value in network.state_dict().items()}

    def test_accuracy(self, network: nn.Module) -> tuple[float, list[float]]:
        """Accuracy of the kept weights on the test split: of all images, and of each class."""
        network.eval()
        network.load_state_dict(self.state)
        correct = (predict(network, self.test.images) == self.test.labels).double()
        classes = [correct[self.test.labels == label].mean().item() for label in range(10)]
        return correct.mean().item(), classes


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """The most probable class of each image, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(batch).argmax(1) for batch in images.split(EVALUATION_BATCH)])


def network_builder(reference: Path, name: str) -> Callable[[], nn.Module]:
    """The function that builds network `name` of the reference in folder `reference`."""
    module, class_name, arguments = NETWORKS[name]
    if not (reference / Path(*module.split("."))).with_suffix(".py").is_file():
        raise SystemExit(f"{reference} does not hold the reference: {module.replace('.', '/')}.py is missing")
    sys.path.insert(0, str(reference))
    network = getattr(importlib.import_module(module), class_name)
    return lambda: network(**arguments)


def train_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, train: Tensors, batch_size: int) -> float:
    """One pass over the shuffled images, the last smaller batch included: the plain mean of the batch losses."""
    network.train()
    losses = []
    for batch in torch.randperm(len(train.labels)).split(batch_size):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(train.images[batch]), train.labels[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return statistics.fmean(losses)


def train_seed(
    build: Callable[[], nn.Module], train: Tensors, bests: list[Best], seed: int, options: argparse.Namespace
) -> Iterator[tuple[float, float]]:
    """Trains one seed and updates `bests`; yields (loss, seconds without validation) after each epoch."""
    torch.manual_seed(seed)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    for _ in range(options.epochs):
        start = time.perf_counter()
        loss = train_epoch(network, optimizer, train, options.batch_size)
        seconds = time.perf_counter() - start
        for best in bests:
            best.update(network)
        yield loss, seconds


def run_seed(
    build: Callable[[], nn.Module],
    train: Tensors,
    splits: list[tuple[Tensors, Tensors]],
    seed: int,
    options: argparse.Namespace,
) -> tuple[list[dict], float]:
    """One seed from its first weights to its tests: one record for each setting, and the seconds it trained."""
    bests = [Best(validation, test) for validation, test in splits]
    losses, total = [], 0.0
    for loss, seconds in train_seed(build, train, bests, seed, options):
        losses.append(loss)
        total += seconds
        if len(losses) % 10 == 0 or len(losses) == options.epochs:
            validation = " ".join(f"{best.curve[-1]:.4f}" for best in bests)
            line = f"seed {seed}  epoch {len(losses)}/{options.epochs}  loss {loss:.4f}  validation {validation}"
            print(f"{line}  {total / len(losses):.2f} s an epoch", file=sys.stderr, flush=True)
    records = []
    for best in bests:
        accuracy, classes = best.test_accuracy(build())
        failed = best.accuracy < FAILED_BELOW or not all(map(math.isfinite, losses))
        records.append(
            {
                "test_accuracy": accuracy,
                "best_epoch": best.epoch,
                "validation_accuracy": best.accuracy,
                "per_class_accuracy": classes,
                "train_loss": [loss if math.isfinite(loss) else None for loss in losses],
                "validation_curve": best.curve,
                "failed": failed,
            }
        )
    return records, total


def summarise(setting: int, records: list[dict], options: argparse.Namespace) -> dict:
    """The seeds' records of one setting as one entry, with the fields of a run's `results.json`."""
    kept = [record["test_accuracy"] for record in records if not record["failed"]]
    return {
        "model": options.model,
        "setting": setting,
        "dataset": options.dataset,
        "seeds": options.seeds,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "init": "report",
        "data_seed": options.data_seed,
        **{name: [record[name] for record in records] for name in records[0] if name != "failed"},
        "mean": statistics.fmean(kept) if kept else None,
        "std": statistics.stdev(kept) if len(kept) > 1 else None,
        "failed_seeds": [seed for seed, record in zip(options.seeds, records, strict=True) if record["failed"]],
        "mean_all": statistics.fmean(record["test_accuracy"] for record in records),
    }


def integers(text: str) -> list[int]:
    """Different whole numbers, separated by commas."""
    numbers = [int(part) for part in text.split(",")]
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} names a number twice")
    return numbers


def read_options() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR", help="folder of the PyTorch reference")
    parser.add_argument("--model", choices=NETWORKS, required=True)
    parser.add_argument("--setting", type=integers, required=True, metavar="N[,N]", help="1,3 or 2,4 share a training")
    parser.add_argument("--dataset", choices=DATASETS, default="mnist_5k")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--seeds", type=integers, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, help="default: the data set's protocol")
    parser.add_argument("--batch-size", type=int, help="default: the data set's protocol")
    parser.add_argument("--threads", type=int, help="default: PyTorch's own choice")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    if unknown := set(options.setting) - set(SETTINGS):
        parser.error(f"--setting: {sorted(unknown)} not in {list(SETTINGS)}")
    if len({SETTINGS[number].train_rotated for number in options.setting}) > 1:
        parser.error("--setting: these settings train on different images; run them one by one")
    protocol = DATASETS[options.dataset].protocol
    options.epochs = protocol.epochs if options.epochs is None else options.epochs
    options.batch_size = protocol.batch_size if options.batch_size is None else options.batch_size
    options.learning_rate = protocol.learning_rate
    if options.epochs < 1 or options.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    return options


def describe(build: Callable[[], nn.Module]) -> dict:
    """What is the same for every setting: the network's size, the command, the machine."""
    return {
        "num_parameters": sum(parameter.numel() for parameter in build().parameters()),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
    }


def main() -> None:
    """Trains every seed, writes the file after the last one and prints one line for each setting."""
    options = read_options()
    start = time.perf_counter()
    if options.threads:
        torch.set_num_threads(options.threads)
    build = network_builder(options.reference, options.model)
    try:
        data = [
            load(options.dataset, n, data_seed=options.data_seed, data_dir=options.data_dir) for n in options.setting
        ]
    except DataError as error:
        raise SystemExit(str(error)) from None
    train = Tensors.of(data[0]["train"])
    splits = [(Tensors.of(each["validation"]), Tensors.of(each["test"])) for each in data]
    runs = [run_seed(build, train, splits, seed, options) for seed in options.seeds]
    trained = len(train.labels) * options.epochs * len(options.seeds)
    common = describe(build) | {
        "train_images_per_second": trained / sum(seconds for _, seconds in runs),
        "wall_seconds": time.perf_counter() - start,
    }
    results = [
        summarise(setting, [records[i] for records, _ in runs], options) | common
        for i, setting in enumerate(options.setting)
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"results": results}, indent=1, allow_nan=False) + "\n")
    for result in results:
        accuracies = " ".join(f"{accuracy:.4f}" for accuracy in result["test_accuracy"])
        name = f"{options.model} setting {result['setting']} {options.dataset}"
        print(f"{name}: {accuracies}  mean {result['mean']} std {result['std']} failed {result['failed_seeds']}")


if __name__ == "__main__":
    main()
