"""The page of errors says what it counts."""

import re

import numpy as np
import pytest

from benchmarks import errors


def answers(said):
    """Probabilities `[angle, image, class]` of digits `[angle, image]`."""
    return 0.1 + 0.8 * np.eye(10)[said]


def test_pairs_count_either_direction():
    labels = np.array([6, 9, 2, 1])
    said = np.array([[9, 9, 2, 1], [9, 6, 5, 1]])
    assert errors.pairs(answers(said), labels) == [((6, 9), 0.75), ((2, 5), 0.25)]


def test_the_page_counts_digits_that_rotation_does_not_matter_to():
    labels = np.array([6, 9, 2, 1])
    said = np.tile(labels, (18, 1))
    said[:, 0] = 9  # always
    said[errors.ANGLES.index(40), 1] = 6  # once
    text = errors.page("command", "name", answers(said)[None], labels, 0.0)
    assert re.search(r"\n- 1\.0 digits are wrong at every angle.* 95% of a seed's errors\. 1 are wrong", text)
    assert "Of the digits that are right when upright, 1 are wrong at some other angle" in text
    assert "| 6, all angles | 0.00% | 100.00% | 0.00% |\n| 9, all angles | 94.44% | 5.56% | 0.00% |" in text
    assert "| 6 and 9 | 100.0% |\n| 4 and 7 | 0.0% |\n| 2 and 5 | 0.0% |" in text


def test_the_calibration_error_is_the_gap_between_sureness_and_accuracy():
    labels = np.zeros(10, int)
    found = np.full((1, 10, 10), 0.2 / 9)
    found[0, :6, 0] = found[0, 6:, 1] = 0.8  # 0.8 sure, 6 of 10 right
    assert errors.calibration_error(found, labels) == pytest.approx(0.2)
    half = np.stack([found[0], answers(np.zeros(10, int))])  # and another bin: 0.9 sure, all right
    assert errors.calibration_error(half, labels) == pytest.approx((0.2 + 0.1) / 2)
