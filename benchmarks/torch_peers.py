"""The PyTorch side of `benchmarks.against_peers`: the reference, escnn and plain convolutions, one command a line.

It runs in an environment of its own (benchmarks/requirements-peers.txt) and imports nothing of this project.  Each line
on standard input, `{"kind": "train", "batch": 64, "seconds": 2}`, is answered by a line of JSON.
"""

import argparse
import contextlib
import importlib
import io
import json
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional

ROTATIONS = 8


class Blur(nn.Module):
    """A Gaussian mean of each channel over `window` pixels, as `fconv_jax.blur_pool`."""

    def __init__(self, channels: int, window: int, stride: int, padding: int):
        super().__init__()
        squares = (torch.arange(window) - (window - 1) / 2) ** 2
        line = torch.exp(-squares * 18.0 / (window - 1) ** 2)
        line = line / line.sum()
        self.register_buffer("kernel", (line[:, None] * line).expand(channels, 1, window, window).contiguous())
        self.options = {"stride": stride, "padding": padding, "groups": channels}

    def forward(self, x):
        """`[batch, channel, height, width]` -> the same with fewer pixels."""
        return functional.conv2d(x, self.kernel, **self.options)


class Disk(nn.Module):
    """Fades the corners, as `fconv_jax.inside_disk`."""

    def __init__(self, size: int, margin: float = 2.0):
        super().__init__()
        centre = (size - 1) / 2
        squares = (torch.arange(size) - centre) ** 2
        limit = (centre - margin * centre / 100) ** 2
        self.register_buffer("mask", torch.exp(torch.clamp(limit - squares[:, None] - squares, max=0.0) / 4))

    def forward(self, x):
        """The same shape."""
        return x * self.mask


class Stack(nn.Module):
    """Convolution, batch norm, ReLU and what follows, layer after layer, then a head on the pooled features.

    Args:
      layout: see `against_peers.LAYOUTS`.
      convolution: makes layer number i: (in, out, kernel size, padding, first) -> module.
      norm: makes the batch norm of a number of features.
    """

    def __init__(self, layout: dict, convolution, norm):
        super().__init__()
        modules, before, size = [], 1, 28
        for number, layer in enumerate(layout["layers"]):
            features, kernel_size, padding = layer["features"], layer["kernel_size"], layer["padding"]
            modules += [convolution(before, features, kernel_size, padding, number == 0), norm(features), nn.ReLU()]
            size = size + 2 * padding - kernel_size + 1
            modules += [Disk(size)] if layout["disk"] else []
            if layer.get("pool") == "max":
                modules.append(nn.MaxPool2d(2, 2, padding=1))
                size = (size + 2) // 2
            elif layer.get("pool") == "blur":
                modules.append(Blur(ROTATIONS * features, 5, 2, 2))
                size = (size + 4 - 5) // 2 + 1
            before = features
        self.features = nn.Sequential(*modules)
        self.count, self.power = before, layout["power"]
        last = 5 if layout["power"] is None else 0
        self.blur = Blur(ROTATIONS * before, 5, 1, 0) if last else Blur(before, 5, 1, 2)
        self.head = nn.Sequential(nn.Linear(before * (2 if layout["power"] else 1), 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        """Images `[batch, 1, 28, 28]` -> logits."""
        x = self.features(x)
        if self.power is None:
            x = self.blur(x)
        x = x.unflatten(1, (self.count, ROTATIONS)).amax(2)
        if self.power is None:
            return self.head(x.flatten(1))
        x = self.blur(x)
        mean = x.mean((2, 3))
        power = (x.clamp(min=1e-6) ** self.power).mean((2, 3)) ** (1 / self.power)
        return self.head(torch.cat([mean, power], 1))


class FieldNorm(nn.Module):
    """Batch norm with one mean and variance for each feature, over pixels and rotations (feature is the slow index)."""

    def __init__(self, features: int):
        super().__init__()
        self.norm = nn.BatchNorm3d(features)

    def forward(self, x):
        """The same shape."""
        return self.norm(x.unflatten(1, (-1, ROTATIONS))).flatten(1, 2)


def plain(layout: dict) -> nn.Module:
    """`nn.Conv2d` of the same channels."""

    def convolution(before, features, kernel_size, padding, first):
        inputs = before if first else before * ROTATIONS
        return nn.Conv2d(inputs, features * ROTATIONS, kernel_size, padding=padding, bias=False)

    return Stack(layout, convolution, lambda features: nn.BatchNorm2d(features * ROTATIONS))


def reference(layout: dict, folder: str) -> nn.Module:
    """The F-Conv reference's own layers and batch norm."""
    sys.path.insert(0, folder)
    theirs = importlib.import_module("F_Conv")

    def convolution(before, features, kernel_size, padding, first):
        frequencies = min(layer["frequencies"] for layer in layout["layers"] if layer["kernel_size"] == kernel_size)
        sizes = (kernel_size, before, features, ROTATIONS)
        return theirs.Fconv_PCA(*sizes, inP=frequencies, padding=padding, ifIni=int(first), bias=False)

    return Stack(layout, convolution, lambda features: theirs.F_BN(features, ROTATIONS))


def escnn(layout: dict) -> nn.Module:
    """Escnn's `R2Conv` between regular fields of C8, with its own batch norm, ReLU, pools and group pooling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from escnn import gspaces
        from escnn import nn as steerable
    space = gspaces.rot2dOnR2(ROTATIONS)
    kind, modules, size = steerable.FieldType(space, [space.trivial_repr]), [], 28
    inputs = kind
    for layer in layout["layers"]:
        after = steerable.FieldType(space, layer["features"] * [space.regular_repr])
        options = {"padding": layer["padding"], "bias": False}
        modules.append(steerable.R2Conv(kind, after, layer["kernel_size"], **options))
        modules += [steerable.InnerBatchNorm(after), steerable.ReLU(after)]
        size = size + 2 * layer["padding"] - layer["kernel_size"] + 1
        modules += [steerable.MaskModule(after, size, margin=2)] if layout["disk"] else []
        if layer.get("pool") == "max":
            modules.append(steerable.PointwiseMaxPool2D(after, 2, 2, padding=1))
            size = (size + 2) // 2
        elif layer.get("pool") == "blur":
            modules.append(steerable.PointwiseAvgPoolAntialiased2D(after, 0.66, 2))
            size = (size - 1) // 2 + 1
        kind = after
    if layout["power"] is None:
        modules.append(steerable.PointwiseAvgPoolAntialiased2D(kind, 0.66, 1, padding=0))
    modules.append(steerable.GroupPooling(kind))
    return Steerable(steerable.SequentialModule(*modules), inputs, layout)


class Steerable(nn.Module):
    """An escnn network between plain arrays, with the same head as `Stack`."""

    def __init__(self, features, inputs, layout):
        super().__init__()
        from escnn.nn import GeometricTensor

        self.features, self.inputs, self.wrap, self.power = features, inputs, GeometricTensor, layout["power"]
        count = layout["layers"][-1]["features"]
        self.blur = Blur(count, 5, 1, 2)
        self.head = nn.Sequential(nn.Linear(count * (2 if self.power else 1), 64), nn.ReLU(), nn.Linear(64, 10))

    def exported(self):
        """The network with escnn's `.export()`ed, plain PyTorch modules."""
        self.features, self.wrap = self.features.eval().export(), None
        return self

    def forward(self, x):
        """Images `[batch, 1, 28, 28]` -> logits."""
        x = self.features(x) if self.wrap is None else self.features(self.wrap(x, self.inputs)).tensor
        if self.power is None:
            return self.head(x.flatten(1))
        x = self.blur(x)
        power = (x.clamp(min=1e-6) ** self.power).mean((2, 3)) ** (1 / self.power)
        return self.head(torch.cat([x.mean((2, 3)), power], 1))


class Worker:
    """One network, trained or evaluated on demand."""

    def __init__(self, side: str, layout: dict, folder: str):
        started = time.perf_counter()
        builders = {"plain": plain, "escnn": escnn, "reference": lambda layout: reference(layout, folder)}
        torch.manual_seed(0)
        self.side, self.model = side, builders[side](layout)
        self.build_seconds = time.perf_counter() - started
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def train(self, images, labels):
        """One step of Adam."""
        self.model.train()
        self.optimizer.zero_grad()
        functional.cross_entropy(self.model(images), labels).backward()
        self.optimizer.step()

    def evaluate(self, images, labels):
        """Logits, with filters expanded once (the reference, escnn) as their `eval()` does."""
        del labels
        self.model.eval()
        with torch.inference_mode():
            self.model(images)

    def export(self):
        """The quickest network for use that the library makes."""
        if self.side == "escnn":
            self.model = self.model.exported()


def main() -> None:
    """Answers commands until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--reference", required=True)
    options = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        worker = Worker(options.side, json.loads(options.layout), options.reference)
    print(json.dumps({"build_seconds": worker.build_seconds, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["kind"] == "export":
            worker.export()
            print(json.dumps({}), flush=True)
            continue
        images = torch.rand(command["batch"], 1, 28, 28)
        labels = torch.arange(command["batch"]) % 10
        print(json.dumps(timed(getattr(worker, command["kind"]), images, labels, command["seconds"])), flush=True)


def timed(work, images, labels, seconds: float) -> dict:
    """Images a second over about `seconds`, and the seconds of the first call."""
    started = time.perf_counter()
    work(images, labels)
    first, steps, started = time.perf_counter() - started, 0, time.perf_counter()
    while steps == 0 or time.perf_counter() - started < seconds:
        work(images, labels)
        steps += 1
    return {"first_seconds": first, "images_per_second": steps * len(labels) / (time.perf_counter() - started)}


if __name__ == "__main__":
    main()
