"""Images of every kind become digits as MNIST has them, or one clear line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from experiments.data import DataError, digits
from experiments.data.sources import read_embedded
from experiments.settings import DATASETS

SIZE = (120, 160)  # width, height


def drawing(ink=0, paper=255, mode="L", size=SIZE, width=12):
    """A seven: a bar at the top, and a stroke from its right end down to the left."""
    image = Image.new(mode, size, paper)
    draw = ImageDraw.Draw(image)
    x, y = size[0] / 120, size[1] / 160
    draw.line([(35 * x, 40 * y), (85 * x, 40 * y), (50 * x, 120 * y)], ink, width, "curve")
    return image


def levels(image):
    return np.asarray(image.convert("L"), np.float32) / 255


def read(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return digits.prepare(digits.read(tmp_path / name))


SEVEN = digits.prepare(levels(drawing()))


def assert_alike(found, expected=SEVEN, within=0.02, aside=(0,)):
    """Root of the mean square of the differences; `aside`: pixels by which the centre of mass may be rounded."""
    moved = [np.roll(expected, (i, j), (0, 1)) for i in aside for j in aside]
    assert min(np.sqrt(np.mean((found - image) ** 2)) for image in moved) < within


@pytest.fixture(scope="module")
def mnist():
    return read_embedded(DATASETS["mnist_5k"])["validation"][0][::10].astype(np.float32) / 255


def test_mnists_own_digits_stay_as_they_are(mnist):
    found = np.array([digits.prepare(image) for image in mnist])
    close = np.sqrt(np.mean((found - mnist) ** 2, (1, 2)))
    assert np.quantile(close, 0.9) < 0.06
    moved = np.sqrt(np.mean((found - np.roll(mnist, 1, 2)) ** 2, (1, 2)))
    assert np.quantile(moved, 0.1) > 0.1  # negative control: one pixel aside


@pytest.mark.parametrize("size", [(120, 160), (40, 300), (300, 40), (1500, 900)])
def test_the_rule_box_centre_and_brightness(size):
    found = digits.prepare(levels(drawing(size=size, width=max(3, min(size) // 10))))
    rows, columns = (np.flatnonzero((found > 0.02).any(axis)) for axis in (1, 0))
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    centre = [(found.sum(1 - axis) * np.arange(28)).sum() / found.sum() for axis in (0, 1)]
    assert np.abs(np.subtract(centre, 14)).max() <= 0.51 or min(size) == 40
    assert found.max() == 1.0
    assert found.dtype == np.float32


LIKE = {
    "light on dark": lambda: drawing(255, 0),
    "grey on grey": lambda: drawing(150, 90),
    "colours": lambda: drawing((200, 30, 30), (220, 230, 240), "RGB"),
    "palette": lambda: drawing(0, 255, "RGB").quantize(4),
    "palette, transparent": lambda: drawing("black", (0, 0, 0, 0), "RGBA").quantize(4),
    "two levels": lambda: drawing(0, 1, "1"),
    "grey and alpha": lambda: drawing((0, 255), (255, 255), "LA"),
    "black on nothing": lambda: drawing((0, 0, 0, 255), (0, 0, 0, 0), "RGBA"),
    "black on nothing, white below": lambda: drawing((0, 0, 0, 255), (255, 255, 255, 0), "RGBA"),
    "white on nothing": lambda: drawing((255, 255, 255, 255), (0, 0, 0, 0), "RGBA"),
    "half transparent ink": lambda: drawing((0, 0, 0, 128), (0, 0, 0, 0), "RGBA"),
    "16 bits": lambda: Image.fromarray((levels(drawing()) * 65535).astype(np.uint16)),
    "12 of 16 bits": lambda: Image.fromarray((levels(drawing()) * 4095).astype(np.uint16)),
}


@pytest.mark.parametrize("kind", LIKE)
def test_png_of_every_kind(kind, tmp_path):
    assert_alike(read(tmp_path, LIKE[kind]()))


OTHERS = {
    "jpeg": ("L", "image.jpg", {"quality": 90}),
    "jpeg of four inks": ("CMYK", "image.jpeg", {"quality": 90}),
    "gif": ("L", "image.gif", {}),
    "bmp": ("RGB", "image.bmp", {}),
    "webp": ("RGB", "image.webp", {"lossless": True}),
    "tiff of four inks": ("CMYK", "image.tif", {}),
    "tiff of floats": ("F", "image.tiff", {}),
    "tiff of integers": ("I", "image.tiff", {}),
    "a false name": ("L", "image.png", {"format": "BMP"}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats(kind, tmp_path):
    mode, name, options = OTHERS[kind]
    assert_alike(read(tmp_path, drawing().convert(mode), name, **options))


@pytest.mark.parametrize(("orientation", "undo"), [(3, 180), (6, 90), (8, 270)])
def test_a_photograph_is_rotated_by_its_exif(orientation, undo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rotated = drawing().crop((0, 0, 280, 300)).rotate(undo, expand=True)  # not square
    rotated.save(tmp_path / "plain.tif", tiffinfo={0x0112: orientation})  # not compressed: Pillow maps it by its path
    assert digits.read(tmp_path / "plain.tif").shape == (300, 280)
    assert_alike(read(tmp_path, drawing().rotate(undo, expand=True), "image.jpg", exif=exif, quality=90))
    with pytest.raises(AssertionError):  # negative control
        assert_alike(read(tmp_path, drawing().rotate(undo, expand=True), "image.jpg", quality=90))


def photograph(noise=0.02, size=400, width=20, seed=0):
    """Ink on paper in uneven light, with the table's dark edge on one side and specks."""
    draw = np.random.default_rng(seed)
    strokes = levels(drawing(255, 0, size=(size, size), width=width))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    light = (0.7 + 0.2 * x - 0.1 * y - 0.1 * x * x) * (1 - 0.75 * strokes)
    light[:, : size // 20] = 0.1
    light[size // 2 : size // 2 + 3, size - 20 : size - 17] = 0.1
    return np.clip(light + draw.normal(0, noise, light.shape), 0, 1).astype(np.float32)


def test_a_photograph_of_a_digit_on_paper():
    plain = digits.prepare(levels(drawing(size=(400, 400), width=20)))
    assert_alike(digits.prepare(photograph()), plain, 0.05, (-1, 0, 1))
    assert_alike(digits.prepare(1 - photograph()), plain, 0.05, (-1, 0, 1))


def test_a_thin_pen_is_widened():
    """A stroke of 4 pixels in 900 is a tenth of a pixel of the box."""
    found = digits.prepare(levels(drawing(size=(1200, 1600), width=4)))
    assert_alike(found, within=0.2)
    assert found.sum() > 0.5 * SEVEN.sum()


def test_no_ink():
    draw = np.random.default_rng(0)
    slope = np.linspace(0.3, 0.8, 200, dtype=np.float32)[:, None] * np.ones((1, 150), np.float32)
    noise = draw.normal(0, 0.02, slope.shape).astype(np.float32)
    for blank in (np.zeros((9, 5)), np.ones((1, 1)), slope, 0.5 + noise, slope + noise):
        assert not digits.prepare(blank.astype(np.float32)).any()


def bytes_of(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def bomb():
    """A PNG that says that it has 10^10 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


BROKEN = {
    "empty": (lambda: b"", "is not a readable image"),
    "text": (lambda: b"seven", "is not a readable image"),
    "cut short": (lambda: bytes_of(drawing())[:-60], "can't be read"),
    "cut in its head": (lambda: bytes_of(drawing())[:30], "is not a readable image"),
    "jpeg cut short": (lambda: bytes_of(drawing(), "JPEG")[:500], "can't be read"),
    "a bomb": (bomb, "million pixels"),
    "animated gif": (
        lambda: bytes_of(drawing(), "GIF", save_all=True, append_images=[drawing(200)]), "holds 2 images",
    ),
    "animated png": (
        lambda: bytes_of(drawing(), "PNG", save_all=True, append_images=[drawing(200)]), "holds 2 images",
    ),
    "postscript": (lambda: bytes_of(drawing(), "EPS"), "is not a readable image"),
    "no numbers": (lambda: bytes_of(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), "not numbers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_read_is_said_in_one_line(kind, tmp_path):
    content, says = BROKEN[kind]
    (tmp_path / "image.png").write_bytes(content())
    with pytest.raises(DataError, match=says) as caught:
        digits.read(tmp_path / "image.png")
    assert "\n" not in str(caught.value)
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(DataError, match="can't be read"):
            digits.read(path)


def test_a_large_image_is_averaged_down(tmp_path):
    image = drawing(size=(2400, 3200), width=240)
    expected = digits.prepare(levels(drawing(size=(300, 400), width=30)))
    assert_alike(read(tmp_path, image), expected, within=0.12, aside=(-1, 0, 1))
    with pytest.raises(AssertionError):  # negative control: the same, mirrored
        assert_alike(read(tmp_path, ImageOps.mirror(image)), expected, within=0.12, aside=(-1, 0, 1))
    image.save(tmp_path / "image.jpg")
    assert max(digits.read(tmp_path / "image.jpg").shape) <= 800


def test_a_dark_edge_does_not_hide_a_pale_digit():
    sheet = drawing(ink=155, paper=245, size=(300, 300), width=12)
    ImageDraw.Draw(sheet).rectangle([0, 0, 5, 300], 40)
    assert_alike(digits.prepare(levels(sheet)), digits.prepare(levels(drawing(size=(300, 300)))), 0.1, (-1, 0, 1))
