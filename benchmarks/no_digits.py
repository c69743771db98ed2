"""How often `experiments.predict` says "probably no digit": of digits, which is wrong, and of all else.

python -m benchmarks.no_digits
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from experiments.data import digits
from experiments.data.sources import read_embedded
from experiments.reporting import predicting
from experiments.settings import DATASETS, WEIGHTS

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


def main() -> None:
    """Prints a table in Markdown."""
    images, _ = read_embedded(DATASETS["mnist_5k"])["validation"]
    kinds = {
        "validation digits of mnist_5k": [image.astype(np.float32) / 255 for image in images],
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
    networks = predicting.of_weights(WEIGHTS)
    print("| images | number | " + " | ".join(f"below {least}" for least in THRESHOLDS) + " |")
    print("|---|---|" + "---|" * len(THRESHOLDS))
    for name, pictures in kinds.items():
        answers = predicting._answers([digits.prepare(picture) for picture in pictures], networks)
        flagged = [np.mean([_flagged(answer, least) for answer in answers]) for least in THRESHOLDS]
        print(f"| {name} | {len(pictures)} | " + " | ".join(f"{share:.0%}" for share in flagged) + " |", flush=True)


def _flagged(answer, least):
    """Whether no ink, its amount or the probability speaks against a digit."""
    by_ink = answer.doubt is not None and "probability" not in answer.doubt
    return by_ink or max(answer.probabilities.values()) < least


if __name__ == "__main__":
    main()
