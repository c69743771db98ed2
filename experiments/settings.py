"""The tables: settings, data sets, models, and what decides a run's numbers. Each fact stands in one row.

Nothing heavy is imported, so that command lines can list their choices at once.
"""

import argparse
import dataclasses
from dataclasses import dataclass, field

from experiments.rules import AT_LEAST_0, SEED_LIST, InputError, Rule, number, one_of, whole

SPLITS = ("train", "validation", "test")
SEED_MAPS = ("auto", "vmap", "loop")

COPIES_PER_IMAGE = 4
"""In a rotated split every image is followed by this many rotated copies of itself."""

FAILED_BELOW = 0.2
"""A seed whose best validation accuracy stays under this has failed: after the report's 200 epochs it is stuck at
chance (0.114 there), after few epochs it may only be slow. Whoever says "failed" or "chance" names this rule."""

NUM_SEEDS = 5


@dataclass(frozen=True)
class Setting:
    """Which splits hold rotated copies. Validation is always treated as test."""

    number: int
    train_rotated: bool
    test_rotated: bool

    def is_rotated(self, split: str) -> bool:
        """Whether `split` ("train", "validation" or "test") holds rotated copies."""
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


SCHEDULES = ("constant", "cosine", "steps")
"""The learning rate stays, falls along half a cosine to zero, or falls to a fifth after .3 and again after .6."""
AUGMENTATIONS = ("none", "rotations")
"""What becomes of a training image each time that it is seen: nothing, or a rotation, uniform over the circle."""


@dataclass(frozen=True)
class Dataset:
    """A data set: numbers of different images in each split, and its default protocol.

    Attributes:
      settings: those that it can be used in. Images that are rotated already have setting 1 alone, as they are.
      source: the data set that supplies its files.
    """

    name: str
    num_train: int
    num_validation: int
    num_test: int
    protocol: Protocol
    num_classes: int = 10
    settings: tuple[int, ...] = tuple(SETTINGS)
    source: str | None = None

    @property
    def is_rotated(self) -> bool:
        """Whether its images are rotated already."""
        return len(self.settings) == 1

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
    "mnist_rot": Dataset("mnist_rot", 10_000, 2_000, 50_000, Protocol(batch_size=256), settings=(1,)),
    "mnist_rot_like": Dataset(
        "mnist_rot_like", 10_000, 2_000, 50_000, Protocol(batch_size=256), settings=(1,), source="mnist"
    ),
}
DIGITS = ("mnist", "mnist_5k", "mnist_rot", "mnist_rot_like")
"""The data sets that are made of MNIST's digits."""

_PIXELS = "float32 `[batch, 28, 28, 1]`, 0 to 1, bright on black"
_MNIST = f"{_PIXELS}; the digit's longest side has 20 pixels, its centre of mass lies in the middle, as MNIST's"
_DIGIT = {"kind": "digit", "shape": [28, 28, 1], "text": f"{_MNIST} (experiments/data/digits.py)"}
PREPROCESSING = {
    **dict.fromkeys(DIGITS, _DIGIT),
    "fashion_mnist": {"kind": "fashion", "shape": [28, 28, 1], "text": f"{_PIXELS}, as Fashion-MNIST's"},
}
"""What a data set's images are, and so what a network trained on it takes: exported networks say it."""


@dataclass(frozen=True)
class ModelSpec:
    """All that the programs know of one model.

    Whether a batch may be cut (no batch statistics) and the number of parameters are derived from the network.

    Attributes:
      builder: a name in `fconv_jax.models`, or "module:class".
      options: further arguments of the builder.
      large: bound by arithmetic, not by memory: its products are worth sharing between cores.
      cost: seconds for an image, relative to lenet (2-core CPU); only expected durations depend on it.
      protocol: its own, where it is not the data set's (the report's).
      plain: the network without F-Conv that it is compared with.
      report_runs: the report's own test accuracies on MNIST (its table 2), five runs in each of settings 1 to 4; such
        networks are a sweep's default.
      ladder: the ladder of fixes that it stands on, or that starts from it; `rung`: the name of its step there.
      page: the page that describes it; `beside`: the networks that it is compared with there.
    """

    builder: str
    options: dict = field(default_factory=dict, hash=False)
    large: bool = False
    cost: float = 1
    protocol: Protocol | None = None
    plain: str | None = None
    report_runs: tuple[tuple[float, ...], ...] = ()
    ladder: str | None = None
    rung: str | None = None
    page: str | None = None
    beside: tuple[str, ...] = ()


_INVARIANT = Protocol(epochs=8, batch_size=16, learning_rate=5e-3, schedule="cosine", label_smoothing=0.1)

RUNGS = (
    "plain network", "as published", "variance-preserving init", "symmetric pooling", "maximum over rotations",
    "mean over space", "equal parameters",
)  # fmt: skip
"""A ladder's networks: the plain one, F-Conv as published, and one more fix on each rung above it."""

LADDER_DATASET = "mnist_5k"


def _rungs(ladder: str, network: str, large: bool) -> dict[str, ModelSpec]:
    builder, name = f"experiments.training.ladder_networks:{network}", ladder.replace(" ", "_")
    return {
        f"{name}_rung{i}": ModelSpec(builder, {"fixes": i - 1}, large=large, ladder=ladder, rung=rung)
        for i, rung in enumerate(RUNGS)
    }


def _stacks() -> dict[str, ModelSpec]:
    builder, features = "experiments.training.stacks:stack", {4: (16, 24, 32, 44), 8: (8, 16, 24, 32)}
    own: dict = {"large": True, "cost": 30, "protocol": _INVARIANT}
    return {
        f"stack_c{t}": ModelSpec(builder, {"num_rotations": t, "features": sizes}, **own)
        for t, sizes in features.items()
    }


MODELS: dict[str, ModelSpec] = {
    "lenet": ModelSpec("lenet", report_runs=(
        (0.986, 0.985, 0.986, 0.988, 0.988), (0.984, 0.984, 0.984, 0.983, 0.985),
        (0.624, 0.616, 0.628, 0.616, 0.617), (0.980, 0.977, 0.979, 0.979, 0.978),
    )),
    "lenet_fconv": ModelSpec("lenet_fconv", plain="lenet", ladder="lenet_fconv", report_runs=(
        (0.970, 0.982, 0.981, 0.975, 0.984), (0.977, 0.114, 0.978, 0.982, 0.980),
        (0.610, 0.614, 0.615, 0.609, 0.114), (0.969, 0.975, 0.975, 0.975, 0.972),
    )),
    "lenet_classic": ModelSpec("lenet_classic", cost=2),
    "alexnet": ModelSpec("alexnet", large=True, cost=130, report_runs=(
        (0.995, 0.995, 0.995, 0.995, 0.995), (0.994, 0.994, 0.994, 0.994, 0.996),
        (0.670, 0.672, 0.670, 0.678, 0.683), (0.994, 0.993, 0.993, 0.993, 0.993),
    )),
    "alexnet_fconv": ModelSpec(
        "alexnet_fconv", large=True, cost=130, plain="alexnet", ladder="narrow alexnet_fconv", report_runs=(
            (0.992, 0.990, 0.989, 0.990, 0.989), (0.994, 0.993, 0.993, 0.990, 0.992),
            (0.677, 0.666, 0.662, 0.671, 0.681), (0.991, 0.988, 0.990, 0.990, 0.989),
        ),
    ),
    "fconv_mnist_simple": ModelSpec("fconv_mnist_simple", large=True, cost=20),
    "fconv_mnist": ModelSpec("fconv_mnist", large=True, cost=200),
    "lenet_fconv_invariant": ModelSpec(
        "lenet_fconv_invariant", large=True, cost=60, protocol=_INVARIANT,
        page="invariant", beside=("lenet", "lenet_fconv"),
    ),
    "alexnet_fconv_invariant": ModelSpec(
        "alexnet_fconv_invariant", large=True, cost=1000, protocol=_INVARIANT, page="invariant"
    ),
    **_stacks(),
    **_rungs("lenet_fconv", "LadderLeNet", large=False),
    **_rungs("narrow alexnet_fconv", "LadderAlexNet", large=True),
}  # fmt: skip

NAMED = tuple(name for name, spec in MODELS.items() if not spec.rung)
"""The models that a command line can name: those of `fconv_jax.models.MODELS` (a test keeps them equal), and stacks."""

REPORT_MODELS = tuple(name for name in NAMED if MODELS[name].report_runs)


def protocol(model: str, dataset: str) -> Protocol:
    """The protocol of a cell: the model's own, else the data set's, which is that of the report."""
    return MODELS[model].protocol or DATASETS[dataset].protocol


def _option(rule: Rule, text: str, **default):
    return field(metadata={"rule": rule, "help": text}, **default)


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run's numbers. Settings 1 and 3, and 2 and 4, differ in validation and test only.

    A field's rule and help are those of its option. Defaults are what runs did before there was a choice.
    """

    model: str = _option(one_of(MODELS, shown="NAME"), f"one of: {', '.join(NAMED)}")
    setting: int = _option(
        one_of(SETTINGS, int), "1: all upright; 2: trained on rotated digits; 3: tested on rotated digits; 4: both"
    )
    dataset: str = _option(
        one_of(DATASETS),
        "auto: mnist if it is prepared, placed by hand or downloadable within seconds, else the embedded mnist_5k",
    )
    data_seed: int = _option(whole(0, 2**32 - 1), "decides the angles of rotated images (0)")
    seeds: tuple[int, ...] = _option(SEED_LIST, "train these seeds")
    epochs: int = _option(whole(1), "default: 200; invariant networks, stacks 8")
    batch_size: int = _option(whole(1), "default: 4096; 256 on mnist_5k, mnist_rot(_like); invariant, stacks 16")
    learning_rate: float = _option(
        number(lambda x: x > 0, "above 0 (1e-30 to 1e6)"), "of Adam (default 2e-4; invariant networks, stacks 5e-3)"
    )
    init: str = _option(one_of(("report", "he")), "initial weights (default report, as published)")
    precision: str = _option(one_of(("float32", "bfloat16")), "of the arithmetic (default float32)")
    seed_map: str = _option(one_of(SEED_MAPS), "how seeds share one program (default auto)")
    schedule: str = _option(
        one_of(SCHEDULES), "of its rate: constant (default), cosine (invariant networks, stacks), or steps (a fifth "
        "after .3 of the training, a fifth of that after .6)", default="constant",
    )  # fmt: skip
    weight_decay: float = _option(AT_LEAST_0, "of weights, as in AdamW (default 0)", default=0.0)
    label_smoothing: float = _option(
        number(lambda x: 0 <= x < 1, "of at least 0 and below 1"),
        "the share of a label that is spread over all classes (default 0; invariant networks, stacks 0.1)", default=0.0,
    )  # fmt: skip
    l2: float = _option(AT_LEAST_0, "X times each parameter is added to its gradient (default 0)", default=0.0)
    augmentation: str = _option(
        one_of(AUGMENTATIONS), "of mnist_rot(_like): none (default), or rotations of training images, anew each time",
        default="none",
    )  # fmt: skip

    @classmethod
    def checked(cls, contents: dict) -> "RunConfig":
        """The configuration in `contents`, which may hold more. Raises `InputError` for one that breaks a rule."""
        values = {}
        for name, one in FIELDS.items():
            if name not in contents and one.default is dataclasses.MISSING:
                raise InputError(f"{name!r} is missing")
            try:
                values[name] = one.metadata["rule"].check(contents.get(name, one.default))
            except argparse.ArgumentTypeError as error:
                raise InputError(f"{name}: {error}") from error
        if values["augmentation"] != "none" and not DATASETS[values["dataset"]].is_rotated:
            raise InputError(f"augmentation: {values['dataset']} is upright, rotations are for mnist_rot(_like)")
        return cls(**{**values, "seeds": tuple(values["seeds"])})

    def to_json(self) -> dict:
        """The configuration as JSON keeps it."""
        return {**dataclasses.asdict(self), "seeds": list(self.seeds)}


FIELDS = {one.name: one for one in dataclasses.fields(RunConfig)}

EXPORT_FORMATS = {
    "safetensors": "a folder that fconv_jax.from_pretrained loads",
    "onnx": "a file for onnxruntime and others, without JAX",
    "stablehlo": "a file for jax.export, for some months",
}
"""What a trained network can be written as, and what that is."""

WEIGHTS = "lenet_fconv_invariant_mnist"
"""The packaged network that answers where none is named: trained on rotated MNIST, it reads digits at any angle."""
