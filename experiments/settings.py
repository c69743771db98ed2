"""The report's four settings, the data sets and the protocol each is trained with.

Plain tables without dependencies: importing them is cheap, so that command lines can list their choices at once.
"""

from dataclasses import dataclass

SPLITS = ("train", "validation", "test")

COPIES_PER_IMAGE = 4
"""In a rotated split every image is followed by this many turned copies of itself."""


@dataclass(frozen=True)
class Setting:
    """Which splits hold turned copies. Validation is always treated as test."""

    number: int
    train_rotated: bool
    test_rotated: bool

    def is_rotated(self, split: str) -> bool:
        """Whether `split` ("train", "validation" or "test") holds turned copies."""
        return self.train_rotated if split == "train" else self.test_rotated


SETTINGS: dict[int, Setting] = {
    1: Setting(1, train_rotated=False, test_rotated=False),
    2: Setting(2, train_rotated=True, test_rotated=False),
    3: Setting(3, train_rotated=False, test_rotated=True),
    4: Setting(4, train_rotated=True, test_rotated=True),
}


@dataclass(frozen=True)
class Protocol:
    """How long and how fast to train: defaults, each can be overridden on the command line."""

    epochs: int = 200
    batch_size: int = 4096
    learning_rate: float = 2e-4
    schedule: str = "constant"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0


SCHEDULES = ("constant", "cosine")
"""What becomes of the learning rate: it stays, or falls along half a cosine to zero at the last step."""


@dataclass(frozen=True)
class Dataset:
    """A data set: numbers of different (upright) images in each split, and its default protocol."""

    name: str
    num_train: int
    num_validation: int
    num_test: int
    protocol: Protocol
    num_classes: int = 10

    def num_upright(self, split: str) -> int:
        """Number of different images in `split`, copies not counted."""
        return {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]

    def num_images(self, split: str, setting: int) -> int:
        """Number of images in `split` of `setting`, copies counted."""
        rotated = SETTINGS[setting].is_rotated(split)
        return self.num_upright(split) * (1 + COPIES_PER_IMAGE if rotated else 1)


DATASETS: dict[str, Dataset] = {
    "mnist": Dataset("mnist", 55_000, 5_000, 10_000, Protocol()),
    "fashion_mnist": Dataset("fashion_mnist", 55_000, 5_000, 10_000, Protocol()),
    # Batches of 256 make the report's number of steps an epoch: 14 upright, 69 rotated (there 14 and 68).
    "mnist_5k": Dataset("mnist_5k", 3_500, 500, 1_000, Protocol(batch_size=256)),
}

MODELS = (
    "lenet",
    "lenet_fconv",
    "lenet_classic",
    "alexnet",
    "alexnet_fconv",
    "fconv_mnist_simple",
    "fconv_mnist",
    "lenet_fconv_invariant",
    "alexnet_fconv_invariant",
)
"""Names of `fconv_jax.models.MODELS`, listed here so that `--help` need not import jax (a test keeps them equal)."""

INVARIANT = ("lenet_fconv_invariant", "alexnet_fconv_invariant")
"""Networks whose logits do not change with quarter turns: no part of the report, so with a protocol of their own."""

_INVARIANT_PROTOCOL = Protocol(epochs=8, batch_size=16, learning_rate=5e-3, schedule="cosine", label_smoothing=0.1)


def protocol(model: str, dataset: str) -> Protocol:
    """The protocol of a cell: the data set's, that of the report, but for the invariant networks."""
    return _INVARIANT_PROTOCOL if model in INVARIANT else DATASETS[dataset].protocol


FAILED_BELOW = 0.2
"""A seed whose best validation accuracy stays under this has failed: it is stuck at chance (0.114 in the report)."""


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run's numbers. Settings 1 and 3, and 2 and 4, differ in validation and test only."""

    model: str
    setting: int
    dataset: str
    data_seed: int
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    init: str
    precision: str
    seed_map: str
    schedule: str = "constant"  # defaults: of runs that were made before there was a choice
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
