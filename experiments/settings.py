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
    """How long and how fast to train: the defaults of a data set, each can be overridden on the command line."""

    epochs: int = 200
    batch_size: int = 4096
    learning_rate: float = 2e-4


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
)
"""Names of `fconv_jax.models.MODELS`, listed here so that `--help` need not import jax (a test keeps them equal)."""

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
