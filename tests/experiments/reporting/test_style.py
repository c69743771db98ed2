"""The style of figures: labels beside their lines do not overlap, and a network's line says what it is."""

import matplotlib as mpl
import numpy as np
import pytest

from experiments.reporting import plots, style
from experiments.settings import REPORT_MODELS


def test_labels_are_spread_and_stay_near_their_lines():
    assert style._spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])  # far enough apart: nothing moves
    spread = style._spread([0.2, 0.2, 0.22, 0.9], 0.1)
    assert np.diff(spread).min() == pytest.approx(0.1)
    assert np.mean(spread[:3]) == pytest.approx(np.mean([0.2, 0.2, 0.22]))
    assert spread[3] == pytest.approx(0.9)


def test_a_label_stands_at_the_last_finite_value_of_its_line():
    figure, axis = style.pyplot.subplots()
    lines = [*axis.plot([0, 1], [0.2, 0.8], label="up"), *axis.plot([0, 1], [0.4, np.nan], label="lost")]
    lines += axis.plot([0, 1], [np.nan, np.nan], label="nothing")
    axis.set_ylim(0, 1)
    style.label_ends(axis, lines)
    found = {text.get_text(): text.xy[1] for text in axis.texts}
    style.pyplot.close(figure)
    assert found == pytest.approx({"up": 0.8, "lost": 0.4})


def test_networks_have_different_lines():
    lines = [tuple(sorted(style.line_of(name).items())) for name in (*REPORT_MODELS, "lenet_fconv_invariant")]
    assert len(set(lines)) == len(lines)
    assert style.line_of("lenet")["color"] == style.line_of("lenet_fconv")["color"]
    assert style.line_of("lenet_fconv (he)") != style.line_of("lenet_fconv")
    assert style.line_of("unknown")["color"] == style.GREY


def luminance(color):
    channels = np.array(mpl.colors.to_rgb(color))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (
        0.2126,
        0.7152,
        0.0722,
    )


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_colours_have_contrast_on_light_and_dark_pages(page):
    for color, least in [(style.INK, 4.0), *((color, 2.9) for color in style.COLORS)]:
        dark, light = sorted((luminance(color), luminance(page)))
        assert (light + 0.05) / (dark + 0.05) >= least, color


def test_cells_of_one_epoch_have_no_panel(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "_plot_cells", lambda path, cells, *_: drawn.append([cell["epochs"] for cell in cells]))
    one, two = ({"epochs": epochs, "train_loss": [[1.0] * epochs]} for epochs in (1, 2))
    plots.plot_cell_curves(tmp_path / "a.png", [one, two])
    plots.plot_cell_curves(tmp_path / "a.png", [one])
    assert drawn == [[2], [1]]
