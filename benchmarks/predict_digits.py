"""What `experiments.predict` makes of digits in images of several kinds, and of images of no digit.

The first table says how often "probably no digit" is said, of digits, which is wrong, and of all else. The second is
of test digits drawn on sheets: how often each is named as the digit itself, and rightly.

python -m benchmarks.predict_digits [--weights NAME] [--dataset mnist] [--data-dir DIR]

Digits are the first 1,000 of the data set's test digits and the first 500 of its validation digits.  The test digits of
mnist_5k are some of MNIST's training digits: a network that was trained on MNIST has seen them.
"""

import argparse

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from experiments import data
from experiments.data import digits
from experiments.reporting import predicting
from experiments.settings import WEIGHTS

THRESHOLDS = (0.4, 0.5, 0.6, 0.7)
_draw = np.random.default_rng(0)


def _sheet(paint):
    """A drawing of 200 x 200, black on white."""
    image = Image.new("L", (200, 200), 255)
    paint(ImageDraw.Draw(image))
    return np.asarray(image, np.float32) / 255


def _glyph(text, size=120):
    font = ImageFont.load_default(size)
    return _sheet(lambda pen: pen.text((100, 100), text, 0, font=font, anchor="mm"))


def _points(number):
    return [tuple(map(int, _draw.integers(20, 180, 2))) for _ in range(number)]


def _crossing(pen):
    for _ in range(8):
        pen.line(_points(2), 0, 8)


def _noise(sigma, level=0.0):
    return ndimage.gaussian_filter(_draw.random((200, 200)), sigma).astype(np.float32) + level


def _placed(image, sheet, side, corner):
    """A digit of 28 x 28 as ink from 0 to 1 in a sheet (height, width)."""
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    result = Image.new("L", sheet[::-1], 0)
    result.paste(large, corner)
    return np.asarray(result, np.float32) / 255


def _photograph(image):
    """Grey ink on paper in uneven light, with noise, and the table's dark edge."""
    strokes = _placed(image, (400, 400), 280, (60, 60))
    y, x = np.mgrid[-1:1:400j, -1:1:400j]
    light = (0.75 + 0.15 * x - 0.1 * y - 0.1 * (x * x + y * y)) * (1 - 0.7 * strokes)
    light[:, :20] = 0.1
    return np.clip(light + _draw.normal(0, 0.02, light.shape), 0, 1).astype(np.float32)


def _thin(image):
    """Strokes of a pen, about a third as wide."""
    strokes = _placed(image, (400, 400), 280, (60, 60))
    return 1 - ndimage.grey_erosion(strokes, (11, 11))


SHEETS = {
    "as they are": lambda image: image.astype(np.float32) / 255,
    "dark on light, 200 x 300": lambda image: 1 - _placed(image, (300, 200), 160, (20, 70)),
    "light on dark, 200 x 300": lambda image: _placed(image, (300, 200), 160, (20, 70)),
    "small, in a corner of 600 x 800": lambda image: 1 - _placed(image, (800, 600), 120, (450, 40)),
    "rotated by 30 degrees": lambda image: ndimage.rotate(
        1 - _placed(image, (300, 300), 160, (70, 70)), 30, reshape=False, cval=1, order=1
    ),
    "photographed": _photograph,
    "written with a thin pen": _thin,
}


def sheets_of_digits(networks, test) -> None:
    """Prints the second table in Markdown."""
    images, labels = test.images[:1000, ..., 0], test.labels[:1000]

    def named(sheets):
        answers = predicting._answers([digits.prepare(sheet) for sheet in sheets], networks)
        return np.array([answer.ranked[0] if answer.ranked else "" for answer in answers])

    (model,) = networks.models.values()
    itself = predicting._probabilities(model, images[..., None].astype(np.float32) / 255).argmax(1).astype(str)
    print("\n| images of the 1,000 test digits | named as the digit itself | rightly |\n|---|---|---|")
    print(f"| the digits themselves, not prepared | | {np.mean(itself == labels.astype(str)):.3f} |")
    for name, draw in SHEETS.items():
        found = named([draw(image) for image in images])
        print(f"| {name} | {np.mean(found == itself):.3f} | {np.mean(found == labels.astype(str)):.3f} |", flush=True)


def doubts(networks, validation) -> None:
    """Prints the first table in Markdown."""
    images = validation.images[:500, ..., 0]
    kinds = {
        "validation digits": [image.astype(np.float32) / 255 for image in images],
        "printed digits": [_glyph(text, size) for text in "0123456789" for size in (60, 90, 120)],
        "printed letters, without I O S g i j l o q s": [
            _glyph(text, size) for text in "ABCDEFGHJKLMNPQRTUVWXYZabcdefhkmnprtuvwxyz" for size in (60, 90, 120)
        ],
        "printed words and numbers": [_glyph(text, 50) for text in ("hello", "cat", "42", "170", "3.14", "x + y")],
        "eight crossing lines": [_sheet(_crossing) for _ in range(100)],
        "scribble": [_sheet(lambda pen: pen.line(_points(12), 0, 6)) for _ in range(100)],
        "filled polygon": [_sheet(lambda pen: pen.polygon(_points(5), 0)) for _ in range(100)],
        "noise": [_noise(sigma) for sigma in (0, 1, 8) for _ in range(20)],
    }
    print("| images | number | " + " | ".join(f"below {least}" for least in THRESHOLDS) + " |")
    print("|---|---|" + "---|" * len(THRESHOLDS))
    for name, sheets in kinds.items():
        answers = predicting._answers([digits.prepare(sheet) for sheet in sheets], networks)
        flagged = [np.mean([_flagged(answer, least) for answer in answers]) for least in THRESHOLDS]
        print(f"| {name} | {len(sheets)} | " + " | ".join(f"{share:.0%}" for share in flagged) + " |", flush=True)


def _flagged(answer, least):
    """Whether no ink, its amount or the probability speaks against a digit."""
    by_ink = answer.doubt is not None and "probability" not in answer.doubt
    return by_ink or max(answer.probabilities.values()) < least


if __name__ == "__main__":
    parser = argparse.ArgumentParser("benchmarks.predict_digits")
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    packaged = predicting.of_weights(options.weights)
    splits = data.load(
        options.dataset, 1, data_dir=options.data_dir, splits=("validation", "test"), progress=lambda line: None
    )
    doubts(packaged, splits["validation"])
    sheets_of_digits(packaged, splits["test"])
