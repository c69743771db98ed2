"""From an image file to a digit as MNIST has it: 28 x 28, bright on black, of one size, in the middle.

The rule is that of the data set's own page (http://yann.lecun.com/exdb/mnist/): the digit, its aspect ratio kept, is
fitted into a box of 20 x 20 pixels, with grey levels from anti-aliasing, and this into 28 x 28 pixels with the centre
of mass in the middle.  All 5,000 digits of mnist_5k have it within 0.5 of pixel 14, and their brightest pixel at 254 or
255 of 255.  What comes before that rule - which pixels are ink - is ours.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, WebPImagePlugin  # noqa: F401, two more readers
from scipy import ndimage

from experiments.data.files import IMAGE_SIZE, DataError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
"""Others stay closed: Pillow's reader of EPS starts a program."""
BOX = 20
_MOST = 400  # largest side, in pixels, in which ink is searched; a larger image is averaged down to it
_LEAST_CONTRAST = 0.06  # of ink against background, which is 1 for black on white
_NOISE = 4.0  # standard deviations of the background that ink must exceed
_THINNEST = 1.6  # pixels of the box: a thinner stroke (a pen on a large sheet) is widened
_FINE = 4  # strokes are widened in a box this many times larger


def read(path: Path) -> np.ndarray:
    """Reads an image as grey levels `[height, width]`, float32, 0 to 1, upright by its EXIF.

    A large image is averaged down.  16 bits and more are spread over 0 to 1; what is transparent gets the colour of the
    background around it.

    Raises:
      DataError: no image of a known format, damaged, animated or too large (the message is without the path).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Not by path: Pillow then maps an uncompressed TIFF, of the wrong shape where its EXIF rotates it.
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format != "MPO":  # a telephone's JPEG, with a preview
                    raise DataError(f"holds {frames} images: save the one that is meant")
                image.draft("L", (_MOST, _MOST))  # reads a JPEG at a smaller size
                image.load()
                return _levels(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError) as error:
        most = f"{(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f}"
        raise DataError(f"holds more than {most} million pixels: make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"is not a readable image ({', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow raises a dozen kinds for damaged files.
        what = getattr(error, "strerror", None) or " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"can't be read ({what})") from error


def _levels(image):
    """Grey levels of an image of any mode, averaged down."""
    if image.mode[0] in "IF":
        values = _averaged(np.asarray(image, np.float64))
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise DataError("holds pixels that are not numbers")
        return ((values - low) / max(high - low, 1e-30)).astype(np.float32)
    if not image.has_transparency_data:
        return _averaged(np.asarray(image.convert("RGB").convert("L"))) / np.float32(255)
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"), np.float32) / 255
    grey = np.asarray(image.convert("RGB").convert("L"), np.float32) / 255
    edge = _border(alpha)
    if edge.mean() > 0.5:
        background = np.average(_border(grey), weights=edge)
    else:  # only the strokes are opaque: the background is the opposite of their colour
        background = float(np.average(grey, weights=alpha + 1e-6) < 0.5)
    return _averaged(grey * alpha + background * (1 - alpha))


def _averaged(values):
    """`[height, width]` in blocks of k x k pixels, their means; k is the least for sides of 400."""
    k = -(-max(values.shape) // _MOST)
    height, width = (max(size // k, 1) for size in values.shape)
    values = values[: height * k, : width * k]
    blocks = values.reshape(height, -1, width, values.shape[1] // width)
    return blocks.mean((1, 3), dtype=np.promote_types(values.dtype, np.float32))


def _border(values):
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def prepare(grey: np.ndarray) -> np.ndarray:
    """Returns the digit of an image `[height, width]`, all 0 to 1, as float32 `[28, 28]`; zeros if there is no ink."""
    strokes = ink(_averaged(np.asarray(grey, np.float32)))
    return fit(strokes) if strokes.any() else np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)


def ink(grey: np.ndarray) -> np.ndarray:
    """How much of each pixel is ink, 0 to 1, whichever of ink and background is the darker.

    The background is a quadratic function of the position, fitted to most pixels: light falls unevenly on paper.  Ink
    is what differs from it in one direction by more than Otsu's threshold (IEEE Trans. SMC 9:62, 1979), and its border.
    Specks are removed, and what touches the image's edge if there is a large enough stroke inside.
    """
    differs = grey - _background(grey)
    candidates = [_strokes(sign * differs) for sign in (-1, 1)]
    return max(candidates, key=lambda found: (found[1], found[0].sum()))[0]


def _background(grey):
    y, x = np.ix_(*(np.linspace(-1, 1, size, dtype=np.float32) for size in grey.shape))
    step = max(1, max(grey.shape) // 32)  # some thousand places are enough
    values, few_y, few_x = grey[::step, ::step].reshape(-1), y[::step], x[:, ::step]
    terms = np.broadcast_arrays(1, few_x, few_y, few_x * few_x, few_x * few_y, few_y * few_y)
    terms = np.stack(terms, axis=-1).reshape(-1, 6)
    differs = np.abs(values - np.median(values))
    a, b, c, d, e, f = np.zeros(6)
    for _ in range(5):
        most = differs <= np.quantile(differs, 0.7)
        near = terms[most]
        a, b, c, d, e, f = weights = np.linalg.solve(near.T @ near + 1e-3 * np.eye(6), near.T @ values[most])
        differs = np.abs(values - terms @ weights)
    return a + x * (b + d * x + e * y) + y * (c + f * y)


def _strokes(differs):
    """(ink 0..1, how much of it counts): what of one sign stands out of the background."""
    nothing = np.zeros_like(differs), 0.0
    few = differs.reshape(-1)[:: max(1, differs.size // 10_000)]
    noise = 1.4826 * float(np.median(np.abs(few - np.median(few))))
    threshold = _otsu(np.maximum(differs, 0))
    mask = differs > max(threshold, 1e-6)
    if not mask.any():
        return nothing
    full = float(np.quantile(differs[mask], 0.8))
    if full < max(_LEAST_CONTRAST, _NOISE * noise):
        return nothing
    of_scipy: Any = ndimage  # whose types are those of all its functions' arguments at once
    labels, count = of_scipy.label(mask, np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(differs, labels, numbers)
    boxes = [max(s.stop - s.start for s in box) for box in ndimage.find_objects(labels)]
    inside = ~np.isin(numbers, _border(labels))
    large = np.array(boxes) > max(differs.shape) / 10
    keep = inside if (inside & large).any() else np.ones(count, bool)
    keep &= sizes > 0.05 * sizes[keep].max()
    kept = np.append(False, keep)[labels]
    paler = float(np.quantile(differs[kept], 0.8))
    full = paler if paler < 0.8 * full else full  # what was dropped, such as a sheet's dark edge, was darker
    low = min(max(0.02, 3 * noise), full / 2)
    values = np.clip((differs - low) / (full - low), 0, 1)
    values[~of_scipy.binary_dilation(kept, iterations=2)] = 0
    return values, float(values.sum())


def _otsu(values):
    most = max(float(values.max()), 1e-6)
    counts = np.bincount((values * (255 / most)).astype(np.uint8).reshape(-1), minlength=256)
    edges = np.linspace(0, most * 256 / 255, 257)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above, sums = below[-1] - below, np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nanargmax(between)]) if np.isfinite(between).any() else most


def fit(strokes: np.ndarray) -> np.ndarray:
    """Ink `[height, width]`, 0 to 1, by MNIST's rule: float32 `[28, 28]`, its brightest pixel 1.

    A stroke thinner than MNIST's, as of a pen on a large sheet, is widened to 1.6 pixels of the box: left alone, it
    would be nothing but grey.
    """
    rows, columns = (np.flatnonzero((strokes > 0.5).any(axis)) for axis in (1, 0))
    digit = strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = _FINE * BOX / max(digit.shape)
    wider = max(0, round(_FINE * _THINNEST - scale * _width(digit > 0.5)))
    height, width = (max(1, round((_FINE * BOX - wider) / max(digit.shape) * size)) for size in digit.shape)
    fine = np.asarray(Image.fromarray(digit).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    if wider:
        fine = np.pad(fine, (wider // 2, wider - wider // 2))
        y, x = np.mgrid[: wider + 1, : wider + 1] - wider / 2
        fine = ndimage.grey_dilation(fine, footprint=x * x + y * y <= (wider / 2) ** 2 + 0.5)
    height, width = (max(1, round(size / _FINE)) for size in fine.shape)
    small = np.asarray(Image.fromarray(fine).resize((width, height), Image.Resampling.BOX))
    small = small / small.max()
    result = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    starts = []
    for axis, size in enumerate(small.shape):
        centre = float((small.sum(1 - axis) * np.arange(size)).sum() / small.sum())
        starts.append(int(np.clip(round(IMAGE_SIZE / 2 - centre), 0, IMAGE_SIZE - size)))
    result[starts[0] : starts[0] + small.shape[0], starts[1] : starts[1] + small.shape[1]] = small
    return result


def _width(mask):
    """Width of strokes: in a bar of width w, pixels are w / 4 from its edge in the mean."""
    distances: Any = ndimage.distance_transform_edt(np.pad(mask, 1))
    return 4 * float(distances[1:-1, 1:-1][mask].mean() - 0.5)
